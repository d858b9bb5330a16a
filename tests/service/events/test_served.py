"""Rows of the event log: there and back, and which day they lie under."""

import msgspec
import pytest

from service.events.served import ServedList, Told, day_of, decode, encode, milliseconds_of
from service.identifiers import new_uuid7
from tests.service.events.rows import DAY, DAY_S, NOON, served, told, uuid7


def test_rows_go_there_and_back():
    full = ServedList("Books", ["i1", "i2"], team=["a", "b"], explored=2, propensity=0.05)
    for row in (served(lists=[full], interleaved="team-draft"), served(variant=None, items=()), told(), told(served())):
        assert decode(encode(row)) == row


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        msgspec.msgpack.encode(["x", 1]),
        encode(served())[:-1],
        encode(served(recommendation_id="no id")),
        encode(told(timestamp=float("nan"))),
        encode(told(timestamp=1e300)),
        encode(told(timestamp=-1.0)),
    ],
)
def test_what_is_no_row_is_told_from_one(raw):
    assert decode(raw) is None


def test_a_row_of_a_later_version_with_more_fields_is_still_read():
    row = told()
    longer = msgspec.msgpack.encode([*msgspec.msgpack.decode(encode(row)), "new"])
    assert decode(longer) == row


def test_the_time_of_an_id_is_the_one_it_was_made_at():
    assert milliseconds_of(uuid7(NOON)) == NOON * 1000
    assert abs(milliseconds_of(new_uuid7()) / 1000 - __import__("time").time()) < 60
    assert milliseconds_of("f47ac10b-58cc-4372-a567-0e02b2c3d479") is None
    assert milliseconds_of("u1") is None


def test_an_event_lies_under_the_day_of_its_recommendation_however_late_it_is():
    yesterday = served(at=NOON - DAY_S)
    assert day_of(yesterday) == "2026-09-21"
    assert day_of(told(yesterday)) == "2026-09-21"
    assert day_of(told(None)) == DAY
    assert day_of(told(served(at=NOON - 80 * DAY_S))) == "2026-07-04"


@pytest.mark.parametrize("made", [0, NOON + 3 * DAY_S, NOON - 91 * DAY_S, 2**47 / 1000])
def test_an_id_that_cannot_be_of_its_event_does_not_say_its_day(made):
    assert day_of(told(recommendation_id=uuid7(made))) == DAY
    assert day_of(told(recommendation_id="made up")) == DAY


def test_an_event_of_a_midnight_lies_under_the_new_day():
    row = Told(user_id="u", item_id="i", domain="d", timestamp=NOON + DAY_S / 2, event="click", event_id="e")
    assert day_of(row) == "2026-09-23"
