"""JSON -> frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from syncrec.client.answers import Recommendation
from syncrec.client.reading import NotAsPromised, read
from tests.client.fake import ANSWER


@dataclass(frozen=True)
class Inner:
    name: str
    size: float = 0.5


@dataclass(frozen=True)
class Outer:
    count: int
    inner: tuple[Inner, ...]
    by_name: Mapping[str, tuple[Inner, ...]]
    maybe: Inner | None = None
    flag: bool = False


GOOD = {"count": 2, "inner": [{"name": "a"}], "by_name": {"x": [{"name": "b", "size": 1}], "y": []}}


def test_objects_lists_and_maps_become_what_the_annotations_say():
    read_it = read(Outer, {**GOOD, "maybe": {"name": "c"}, "flag": True})
    assert read_it == Outer(2, (Inner("a"),), {"x": (Inner("b", 1),), "y": ()}, Inner("c"), True)


def test_null_stands_for_an_optional_one():
    assert read(Outer, {**GOOD, "maybe": None}) == read(Outer, GOOD)


def test_fields_of_a_newer_service_are_passed_over_at_every_depth():
    item = read(Recommendation, ANSWER).domains["Books"][0]
    assert (item.item_id, item.score, item.rank, item.title) == ("B1", 1.25, 1, "Dune")


def test_answers_cannot_be_changed():
    read_it = read(Outer, GOOD)
    with pytest.raises(TypeError):
        read_it.by_name["x"] = ()
    with pytest.raises(AttributeError):
        read_it.count = 3


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"count": "2"}, "count is not int"),
        ({"count": True}, "count is not int"),
        ({"count": 2.5}, "count is not int"),
        ({"flag": 1}, "flag is not bool"),
        ({"inner": {}}, "inner is not a list"),
        ({"inner": [{"name": "a"}, {}]}, "inner[1].name is missing"),
        ({"by_name": {"x": [{"name": 1}]}}, "by_name.x[0].name is not str"),
        ({"maybe": "c"}, "maybe is not an object"),
    ],
)
def test_what_is_not_as_promised_is_named(change, says):
    with pytest.raises(NotAsPromised) as refused:
        read(Outer, {**GOOD, **change})
    assert str(refused.value) == says


def test_an_answer_that_is_no_object_is_refused():
    with pytest.raises(NotAsPromised, match="the answer is not an object"):
        read(Outer, [GOOD])
