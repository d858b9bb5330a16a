"""The hot route's decoder against the pydantic models that OpenAPI shows: they must accept and refuse the same bodies."""

import json

import msgspec
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest
from service.http.fast import decode_request
from service.http.schemas import RecommendBody
from service.recommend import RecommendRequest

NUMBERS = st.one_of(
    st.integers(-2, 102),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0, 1, 100, 101, 10.0, 1e2, -0.0, 2**32 - 1, 2**32, 4294967295.5, 2**63, 2**64, 10**30, 1e300]),
)
TEXTS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["", "a", "x" * 256, "x" * 257, "é" * 256, "𝄞" * 256, "𝄞" * 257, "\x00", "2024-01-01", "x" * 65]),
)
ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=4,
)
IDS = st.lists(st.one_of(TEXTS, ANY), max_size=3)
EVENTS = st.fixed_dictionaries(
    {"item_id": TEXTS, "domain": TEXTS}, optional={"timestamp": st.one_of(NUMBERS, TEXTS, st.none(), ANY), "odd": ANY}
)
FIELDS = {
    "user_id": st.one_of(TEXTS, ANY),
    "domains": st.one_of(IDS, st.none(), ANY, st.just(["a"] * 101)),
    "k": st.one_of(NUMBERS, ANY),
    "exclude_seen": st.one_of(st.booleans(), ANY),
    "exclude_item_ids": st.one_of(IDS, ANY, st.just(["a"] * 1001)),
    "history": st.one_of(
        st.lists(st.one_of(EVENTS, ANY), max_size=3), ANY, st.just([{"item_id": "a", "domain": "b"}] * 1001)
    ),
    "candidates": st.one_of(st.dictionaries(TEXTS, IDS, max_size=2), ANY, st.just({"a": ["b"] * 1001})),
    "categories": st.one_of(IDS, ANY, st.just(["a"] * 101)),
    "explain": ANY,
}
VALID = {"user_id": "u"}


def accepts(body):
    """What either side makes of a body: its values, or None where it refuses."""
    try:
        hot = msgspec.to_builtins(decode_request(body))
    except InvalidRequest:
        hot = None
    try:
        shown = RecommendBody.model_validate_json(body).model_dump()
    except pydantic.ValidationError:
        shown = None
    return hot, shown


@given(st.fixed_dictionaries({}, optional=FIELDS))
@settings(max_examples=300, deadline=None)
def test_bodies_of_any_fields_are_taken_or_refused_by_both_alike(body):
    hot, shown = accepts(json.dumps(body).encode())
    assert hot == shown


@given(st.sampled_from(sorted(FIELDS)).flatmap(lambda name: st.tuples(st.just(name), FIELDS[name])))
@settings(max_examples=700, deadline=None)
def test_one_odd_field_in_a_good_body_is_taken_or_refused_by_both_alike(field):
    name, value = field
    hot, shown = accepts(json.dumps({**VALID, name: value}).encode())
    assert hot == shown


@given(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
@example(b"")
@example(b'{"user_id": "\xff"}')
@example(b'{"user_id": "\\ud800"}')
@example(b'{"user_id": "\\udc00\\ud800"}')
@example(b'{"user_id": "\xed\xa0\x80"}')
@example(b'{"user_id": "a\nb"}')
@example(b'{"user_id": "u", "user_id": "v"}')
@example(b'{"user_id": "u", "user_id": 3}')
@example(b'{"user_id": "u"} x')
@example(b'{"user_id": "u",}')
@example(b'\xef\xbb\xbf{"user_id": "u"}')
@example(b'{"user_id": "u", "k": 1e1}')
@example(b'{"user_id": "u", "k": 10.0}')
@example(b'{"user_id": "u", "k": 010}')
@example(b'{"user_id": "u", "k": -0}')
@example(b'{"user_id": "u", "k": NaN}')
@example(b'{"user_id": "u", "history": [{"item_id": "a", "domain": "b", "timestamp": NaN}]}')
@example(b'{"user_id": "u", "history": [{"item_id": "a", "domain": "b", "timestamp": Infinity}]}')
@example(b'{"user_id": "u", "history": [{"item_id": "a", "domain": "b", "timestamp": 1e999}]}')
@example(b'{"user_id": "u", "history": [{"item_id": "a", "domain": "b", "timestamp": 1' + b"0" * 400 + b"}]}")
@example(b'{"user_id": "u", "candidates": {"a": [], "a": ["x"]}}')
@example(b"[" * 100_000)
@example(b'{"user_id": ' + b"[" * 100_000)
@example(b'{"candidates": ' + b'{"a":' * 100_000)
@settings(max_examples=300, deadline=None)
def test_bytes_that_are_hardly_json_are_taken_or_refused_by_both_alike(body):
    hot, shown = accepts(body)
    assert hot == shown


@pytest.mark.parametrize(
    ("field", "limit"),
    [
        ("domains", lambda n: ["a"] * n),
        ("exclude_item_ids", lambda n: ["a"] * n),
        ("history", lambda n: [{"item_id": "a", "domain": "b"}] * n),
        ("candidates", lambda n: {"a": ["b"] * n}),
        ("categories", lambda n: ["a"] * n),
        ("user_id", lambda n: "é" * n),
        ("k", lambda n: n),
    ],
)
def test_both_have_the_same_limits(field, limit):
    for size in (99, 100, 101, 255, 256, 257, 999, 1000, 1001):
        hot, shown = accepts(json.dumps({**VALID, field: limit(size)}).encode())
        assert hot == shown, size


def test_both_have_the_same_fields_and_defaults():
    hot = {field.name: field.default for field in msgspec.structs.fields(RecommendRequest)}
    assert list(hot) == list(RecommendBody.model_fields)
    assert msgspec.to_builtins(RecommendRequest("u")) == RecommendBody(user_id="u").model_dump()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user_id"),
        ({"user_id": 3}, "user_id"),
        ({"user_id": "u", "k": 0}, "k"),
        ({"user_id": "u", "history": [{"item_id": "a", "domain": "b"}, {"item_id": "a"}]}, "history[1].domain"),
        ({"user_id": "u", "history": [{"item_id": "a", "domain": "b", "timestamp": []}]}, "history[0].timestamp"),
        ({"user_id": "u", "candidates": {"Books": ["a", 3]}}, "candidates.Books[1]"),
        ({"user_id": "u", "candidates": {"": []}}, "candidates."),
        ({"user_id": "u", "explain": True}, "explain"),
        ({"user_id": "u", "domains": "Books"}, "domains"),
        ([], ""),
    ],
)
def test_a_refused_body_names_the_field(body, field):
    with pytest.raises(InvalidRequest) as refused:
        decode_request(json.dumps(body).encode())
    assert field in {error.field for error in refused.value.errors}
