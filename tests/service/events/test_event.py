"""Which events can be taken, and what is said of the others."""

import msgspec
import pytest

from service.events.event import Unusable, read_event

NOW = 1_700_000_000.0
DOMAINS = {"Books", "Toys"}
WHOLE = {"event_id": "e", "user_id": "u", "item_id": "i", "domain": "Books"}


def read(**changed):
    event = {name: value for name, value in {**WHOLE, **changed}.items() if value is not ...}
    return read_event(msgspec.json.encode(event), DOMAINS, NOW)


def test_what_is_not_said_has_a_default():
    event, seconds = read()
    assert (event.event, event.rank, event.recommendation_id) == ("interaction", None, None)
    assert seconds == NOW


@pytest.mark.parametrize(
    ("timestamp", "seconds"),
    [
        (0, 0),
        (1_699_999_999.5, 1_699_999_999.5),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000),
        (NOW + 86_400, NOW + 86_400),
    ],
)
def test_times_of_every_kind(timestamp, seconds):
    assert read(timestamp=timestamp)[1] == seconds


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"event_id": ...}, "event_id"),
        ({"user_id": ""}, "user_id"),
        ({"item_id": "i" * 257}, "item_id"),
        ({"item_id": 7}, "item_id"),
        ({"domain": "Cars"}, "unknown domain 'Cars'"),
        ({"event": "purchase"}, "event"),
        ({"rank": 0}, "rank"),
        ({"price": 3}, "price"),
        ({"timestamp": "yesterday"}, "ISO 8601"),
        ({"timestamp": -1}, "before 1970"),
        ({"timestamp": 1_700_000_000_000}, "not milliseconds"),
        ({"timestamp": NOW + 86_401}, "in the future"),
        ({"timestamp": [1]}, "timestamp"),
    ],
)
def test_what_cannot_be_meant_is_named(changed, reason):
    with pytest.raises(Unusable, match=reason):
        read(**changed)


@pytest.mark.parametrize("raw", [b"7", b"null", b"[]", b"{", b"1e999", b""])
def test_what_is_no_event_is_refused(raw):
    with pytest.raises(Unusable):
        read_event(raw, DOMAINS, NOW)


@pytest.mark.parametrize("user_id", [b"\xff", b"\xed\xa0\x80", b"\\ud800"])
def test_text_that_is_no_unicode_is_refused(user_id):
    with pytest.raises(Unusable):
        read_event(b'{"event_id": "e", "user_id": "%b", "item_id": "i", "domain": "Books"}' % user_id, DOMAINS, NOW)
