"""What each method asks."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from syncrec.client import Event, HistoryEvent, Request, asking


def test_only_what_is_said_is_sent():
    assert asking.recommend(Request("u")).body == {"user_id": "u"}
    said = Request(
        "u",
        domains=("Books",),
        k=3,
        exclude_seen=False,
        exclude_item_ids=["B1"],
        history=[HistoryEvent("Toys", "T1", 5), HistoryEvent("Toys", "T2")],
        candidates={"Books": ("B7",)},
        categories=[],
    )
    assert asking.recommend(said).body == {
        "user_id": "u",
        "domains": ["Books"],
        "k": 3,
        "exclude_seen": False,
        "exclude_item_ids": ["B1"],
        "history": [{"domain": "Toys", "item_id": "T1", "timestamp": 5}, {"domain": "Toys", "item_id": "T2"}],
        "candidates": {"Books": ["B7"]},
        "categories": [],
    }


def test_an_empty_history_is_not_the_same_as_none():
    assert asking.recommend(Request("u", history=[])).body == {"user_id": "u", "history": []}


def test_every_event_has_an_id_of_its_own_and_a_time_from_its_making():
    one, other = Event("u", "Books", "B1"), Event("u", "Books", "B1")
    assert one.event_id != other.event_id
    [sent] = asking.send_events([one]).body["events"]
    [again] = asking.send_events([one]).body["events"]
    assert sent == again
    assert sent["event_id"] == one.event_id
    assert abs(sent["timestamp"] - datetime.now(UTC).timestamp()) < 3600


def test_a_moment_with_a_zone_is_seconds_and_one_without_is_refused():
    noon = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    [sent] = asking.send_events([Event("u", "Books", "B1", timestamp=noon)]).body["events"]
    assert sent["timestamp"] == datetime(2026, 1, 1, 10, tzinfo=UTC).timestamp()
    with pytest.raises(ValueError, match="no time zone"):
        asking.send_events([Event("u", "Books", "B1", timestamp=datetime(2026, 1, 1))])  # noqa: DTZ001


@pytest.mark.parametrize("item_id", ["a/b", "a b", "a?b#c", "é", "%2F"])
def test_ids_stay_whole_in_a_path(item_id):
    path = asking.similar("To ys", item_id, None, None).path
    assert path.startswith("/items/To%20ys/")
    assert path.count("/") == 4
    assert "?" not in path
    assert "#" not in path


@pytest.mark.parametrize(("user_id", "path"), [("..", "/users/%2E%2E"), (".", "/users/%2E"), ("a.b", "/users/a.b")])
def test_an_id_cannot_climb_out_of_its_route(user_id, path):
    assert asking.erase(user_id).path == path


def test_similar_says_how_many_and_where():
    assert asking.similar("Books", "B1", 5, ["Books", "To ys"]).path == (
        "/items/Books/B1/similar?k=5&domains=Books&domains=To+ys"
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "\ud800"])
def test_what_json_cannot_carry_is_refused_before_it_is_sent(bad):
    with pytest.raises(ValueError):  # noqa: PT011 (json's own text)
        asking.encode(asking.as_json(Event("u", "Books", "B1", timestamp=bad)))
