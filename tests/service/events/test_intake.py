"""A call's events into Redis: counted once, told apart, and gone when their user is erased."""

from contextlib import asynccontextmanager

import msgspec
import pytest
import redis
from redis.asyncio import Redis

from formats.bundle import newest_bundle
from service.errors import HistoryUnavailable
from service.events.erasure import erase_waiting, mark_erased
from service.events.intake import Intake, Rejected, Taken
from service.events.stream import EventLog
from service.history.erase import erase_user
from service.history.keys import history_key
from service.history.packed import unpack
from service.history.write import HistoryRules, HistoryWriter
from service.ranking.catalog import read_catalog
from service.ranking.item_states import ItemState, ItemStateStore
from service.ranking.live_popularity import LivePopularity
from service.scripts import Script
from tests.service.running import RedisProcess
from tests.service.small_bundle import DOMAINS

NOW = 1_700_000_000.0


def event(event_id, item_id="B1", user_id="u1", **more):
    return msgspec.json.encode(
        {"event_id": event_id, "item_id": item_id, "user_id": user_id, "domain": "Books", **more}
    )


@asynccontextmanager
async def taking(url):
    counted = []
    async with Redis.from_url(url) as connection:
        writer = HistoryWriter(connection, 10_000, HistoryRules(100, 90, keep_repeats=False))
        log = EventLog(connection, queue_limit=1000, stream_limit=1000)
        intake = Intake(writer, log, lambda *counts: counted.append(counts), lambda: NOW)
        intake.counted = counted
        yield intake


async def test_each_event_is_accepted_a_duplicate_or_rejected_with_its_place(redis_url):
    async with taking(redis_url) as intake:
        taken = await intake.take(
            [event("1"), b"nonsense", event("1"), event("2", event="click"), event("3", event="impression"), event("")],
            DOMAINS,
        )
        assert (taken.accepted, taken.duplicates) == (3, 1)
        assert [one.index for one in taken.rejected] == [1, 5]
        assert await intake.take([event("1"), event("3", event="impression")], DOMAINS) == Taken(0, 2, [])


async def test_interactions_and_clicks_are_in_the_history_and_counted_and_impressions_are_not(redis_url):
    async with taking(redis_url) as intake:
        events = [
            event("1", "B1", timestamp=NOW - 5.5),
            event("2", "new one", event="click"),
            event("3", "B3", event="impression"),
        ]
        await intake.take([*events, events[0]], DOMAINS)
    assert intake.counted == [("Books", "B1", NOW - 5.5), ("Books", "new one", NOW)]
    with redis.Redis.from_url(redis_url) as client:
        history = unpack(client.get(history_key("u1"))).events
    assert history["timestamp"].tolist() == [NOW - 6, NOW]


async def test_a_user_of_whom_something_else_is_stored_is_told_and_the_others_are_taken(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.set(history_key("broken"), b"\x07")
    async with taking(redis_url) as intake:
        taken = await intake.take([event("1", user_id="broken"), b"{}", event("1")], DOMAINS)
    assert taken.accepted == 1
    [refused, malformed] = taken.rejected
    assert (refused.index, malformed.index) == (0, 1)
    assert "erase" in refused.reason
    assert len(intake.counted) == 1


async def test_when_some_events_were_not_taken_all_are_to_be_sent_again_and_count_once(redis_url, monkeypatch):
    from redis.exceptions import ConnectionError as Disconnected

    async with taking(redis_url) as intake:
        run = Script.run

        async def half(script, client, calls):
            return [*await run(script, client, calls[:1]), *(Disconnected("gone") for _ in calls[1:])]

        monkeypatch.setattr(Script, "run", half)
        events = [event("1", user_id="u1"), event("2", user_id="u2")]
        with pytest.raises(HistoryUnavailable, match="again"):
            await intake.take(events, DOMAINS)
        assert len(intake.counted) == 1
        monkeypatch.setattr(Script, "run", run)
        assert await intake.take(events, DOMAINS) == Taken(1, 1, [])
        assert len(intake.counted) == 2


async def test_nothing_usable_asks_nobody(redis_url):
    async with taking(redis_url) as intake:
        assert await intake.take([], DOMAINS) == Taken(0, 0, [])
        assert await intake.take([b"7"], DOMAINS) == Taken(0, 0, [Rejected(0, "Expected `object`, got `int`")])


async def test_a_redis_that_is_away_is_told_and_nothing_is_counted():
    with RedisProcess() as process:
        url = process.url
    async with taking(url) as intake:
        with pytest.raises(HistoryUnavailable):
            await intake.take([event("1")], DOMAINS)
        assert intake.counted == []


def everything(client):
    """All keys and all their values."""
    reads = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1),
        b"stream": client.xrange,
    }
    return repr([(key, reads[client.type(key)](key)) for key in client.scan_iter(count=1000)])


async def test_of_an_erased_user_no_id_is_left_in_any_key_or_value(redis_url, models):
    bundle = newest_bundle(models)
    async with Redis.from_url(redis_url) as connection:
        live = LivePopularity(connection, 7.0, lambda: NOW)
        await live.follow(bundle, read_catalog(bundle))
        intake = Intake(
            HistoryWriter(connection, 10_000, HistoryRules(5, 90, keep_repeats=False)),
            EventLog(connection, queue_limit=1000, stream_limit=1000),
            live.count,
            lambda: NOW,
        )
        for user in ("gone-user", "kept-user"):
            kinds = ["interaction", "click", "impression"]
            events = [event(f"{user}-event-{n}", f"B{n}", user, event=kinds[n % 3]) for n in range(30)]
            await intake.take(events, DOMAINS)
        await live.refresh()
        await ItemStateStore(connection).put("Books", "B1", ItemState(available=False))
        with redis.Redis.from_url(redis_url) as client:
            assert "gone-user" in everything(client)
            await mark_erased(connection, "gone-user", NOW + 1)
            await erase_waiting(connection, "gone-user", NOW + 100_000)
            assert await erase_user(connection, "gone-user")
            found = everything(client)
    assert "gone-user" not in found
    assert "kept-user" in found
    assert "B29" in found  # what was counted stays: it is nobody's
