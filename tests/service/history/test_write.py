"""Events into histories, over a real server: each once, in order, whatever order they come in; and never a seen item."""

import asyncio
from collections import Counter

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from formats.event_ties import item_hashes, tie_hashes, user_hashes
from service.errors import HistoryUnavailable
from service.history.keys import event_ids_key, history_key, keys_of
from service.history.packed import unpack
from service.history.store import open_histories
from service.history.write import DAY_S, MAX_IDS, HistoryRules, HistoryWriter, NewEvent
from tests.service.running import RedisProcess

NOW = 1_700_000_000
RULES = HistoryRules(limit=100, days=90, keep_repeats=False)


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def writer(redis_url):
    async with writing(redis_url) as made:
        yield made


class writing:
    def __init__(self, url, rules=RULES, timeout_ms=10_000):
        self.redis = Redis.from_url(url)
        self.writer = HistoryWriter(self.redis, timeout_ms, rules)

    async def __aenter__(self):
        return self.writer

    async def __aexit__(self, *_):
        await self.writer.close()
        await self.redis.aclose()


def event(event_id, item_id="a", timestamp=NOW, user_id="u1", is_listed=True):
    return NewEvent(event_id, user_id, "Books", item_id, timestamp, is_listed)


def stored(client, user_id="u1"):
    value = client.get(history_key(user_id))
    return None if value is None else unpack(value)


def hashes(*item_ids):
    return item_hashes(("Books", item_id) for item_id in item_ids).tolist()


def in_order(events):
    """The slow and obvious order of one user's events: time, then the hash of `formats.event_ties`."""

    def key(one):
        of_user, of_item = user_hashes([one.user_id]), item_hashes([(one.domain, one.item_id)])
        return one.timestamp, int(tie_hashes(of_user, of_item, np.array([one.timestamp * 10**6]))[0])

    return sorted(events, key=key)


async def test_events_land_in_time_order_however_late_they_come(writer, client):
    await writer.append([event("1", "b", 20), event("2", "d", 40)], NOW)
    await writer.append([event("3", "c", 30)], NOW)
    await writer.append([event("4", "e", 50), event("5", "a", 10)], NOW)
    history = stored(client)
    assert history.events["item_hash"].tolist() == hashes("a", "b", "c", "d", "e")
    assert history.events["timestamp"].tolist() == [10, 20, 30, 40, 50]


async def test_an_event_is_taken_once_within_a_call_and_between_calls(writer, client):
    first = await writer.append([event("1", "a"), event("2", "b"), event("1", "c")], NOW)
    second = await writer.append([event("2", "b"), event("3", "d")], NOW)
    assert first == ["taken", "taken", "duplicate"]
    assert second == ["duplicate", "taken"]
    assert sorted(stored(client).events["item_hash"].tolist()) == sorted(hashes("a", "b", "d"))


async def test_an_impression_is_remembered_but_not_in_the_history(writer, client):
    assert await writer.append([event("1", is_listed=False)], NOW) == ["taken"]
    assert await writer.append([event("1", is_listed=False)], NOW) == ["duplicate"]
    assert stored(client) is None


async def test_ids_of_one_user_say_nothing_about_another(writer):
    assert await writer.append([event("1", user_id="u1"), event("1", user_id="u2")], NOW) == ["taken", "taken"]


async def test_ids_are_forgotten_after_more_than_7_days(writer, client):
    await writer.append([event("old")], NOW)
    assert await writer.append([event("old")], NOW + 7 * DAY_S) == ["duplicate"]
    assert await writer.append([event("new"), event("old")], NOW + 8 * DAY_S) == ["taken", "taken"]
    assert len(client.get(event_ids_key("u1"))) == 2 * 8


async def test_ids_of_one_user_are_bounded(writer, client):
    for start in range(0, MAX_IDS + 2000, 1000):
        await writer.append([event(str(n), is_listed=False) for n in range(start, start + 1000)], NOW)
    assert len(client.get(event_ids_key("u1"))) == 8 * MAX_IDS
    assert await writer.append([event(str(MAX_IDS + 1999))], NOW) == ["duplicate"]


async def test_what_is_stored_is_forgotten_in_time(writer, client):
    await writer.append([event("1")], NOW)
    assert 90 * DAY_S - 60 < client.ttl(history_key("u1")) <= 90 * DAY_S
    assert 7 * DAY_S < client.ttl(event_ids_key("u1")) <= 8 * DAY_S


async def test_only_the_first_event_of_an_item_stays_also_when_it_comes_last(writer, client):
    await writer.append([event("1", "a", 30), event("2", "b", 20), event("3", "a", 40)], NOW)
    await writer.append([event("4", "a", 10)], NOW)
    assert stored(client).events["timestamp"].tolist() == [10, 20]


async def test_repeats_stay_where_they_count_but_no_exact_ones(redis_url, client):
    async with writing(redis_url, HistoryRules(100, 90, keep_repeats=True)) as writer:
        await writer.append([event("1", "a", 30), event("2", "a", 20)], NOW)
        await writer.append([event("3", "a", 30), event("4", "a", 10)], NOW)
    assert stored(client).events["timestamp"].tolist() == [10, 20, 30]


async def test_many_users_of_one_call_each_take_one_run_of_the_script(writer, client):
    await writer.append([event("0")], NOW)
    before = client.info("commandstats")
    events = [event(str(n), f"i{n}", NOW + n, f"u{n % 300}") for n in range(1000)]
    assert await writer.append(events, NOW) == ["taken"] * 1000
    calls = client.info("commandstats")["cmdstat_evalsha"]["calls"] - before["cmdstat_evalsha"]["calls"]
    assert calls == 300
    assert len(stored(client, "u7").events) == 4


async def test_a_server_that_forgot_the_script_is_told_again(writer, client):
    await writer.append([event("1")], NOW)
    client.script_flush()
    assert await writer.append([event("1"), event("2", "b", user_id="u2")], NOW) == ["duplicate", "taken"]


async def test_two_writers_at_once_lose_nothing(redis_url, client):
    async with writing(redis_url) as one, writing(redis_url) as other:
        calls = [writer.append([event(str(n), f"i{n}", NOW + n)], NOW) for n in range(80) for writer in (one, other)]
        outcomes = [outcome for [outcome] in await asyncio.gather(*calls)]
    assert Counter(outcomes) == {"taken": 80, "duplicate": 80}
    assert stored(client).events["item_hash"].tolist() == hashes(*(f"i{n}" for n in range(80)))


async def test_a_user_whose_value_is_no_history_fails_alone_and_nothing_of_theirs_is_taken(writer, client):
    client.set(history_key("u1"), b"\x07nonsense")
    events = [event("1"), event("2", is_listed=False), event("1", user_id="u2")]
    assert await writer.append(events, NOW) == ["refused", "refused", "taken"]
    assert not client.exists(event_ids_key("u1"))
    assert await writer.append(events[:2], NOW) == ["refused", "refused"]


async def test_a_full_server_takes_neither_history_nor_id():
    with RedisProcess() as process, redis.Redis.from_url(process.url) as client:
        client.config_set("maxmemory", 1)
        async with writing(process.url) as writer:
            with pytest.raises(HistoryUnavailable):
                await writer.append([event("1")], NOW)
            client.config_set("maxmemory", 0)
            assert await writer.append([event("1")], NOW) == ["taken"]


async def test_a_server_that_is_away_or_stalls_is_told_and_the_event_can_be_sent_again():
    with RedisProcess() as process:
        async with writing(process.url, timeout_ms=200) as writer:
            await writer.append([event("0")], NOW)
            process.stop()
            with pytest.raises(HistoryUnavailable, match="timeout"):
                await writer.append([event("1", "b")], NOW)
            process.resume()
            # The stalled write is carried out after all: sent again, it counts once.
            async with asyncio.timeout(20):
                while (await writer.append([event("1", "b")], NOW)) != ["duplicate"]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            with redis.Redis.from_url(process.url) as client:
                assert len(stored(client).events) == 2
            process.kill()
            with pytest.raises(HistoryUnavailable):
                await writer.append([event("2")], NOW)


async def test_a_write_whose_request_is_cancelled_goes_on(writer, client):
    write = asyncio.create_task(writer.append([event("1")], NOW))
    await asyncio.sleep(0)
    write.cancel()
    await writer.close()
    assert len(stored(client).events) == 1


@pytest.mark.parametrize("user_id", ["u", "}", "}x", "a}b", "{a}", "\0}x", "{}", "é\n"])
def test_all_keys_of_a_user_share_a_cluster_slot_and_no_other_user_s_key(user_id):
    from redis.crc import key_slot

    slots = {key_slot(key.encode()) for key in keys_of(user_id)}
    assert len(slots) == 1
    others = {
        key
        for other in ("u", "}", "}x", "a}b", "{a}", "\0}x", "{}", "é\n", "\0")
        if other != user_id
        for key in keys_of(other)
    }
    assert not others & set(keys_of(user_id))


def calls_of_one_user(items, times):
    one = st.tuples(st.integers(0, items), st.integers(0, times))
    return st.lists(st.lists(one, min_size=1, max_size=12), min_size=1, max_size=12)


def as_events(calls):
    numbers = iter(range(10**6))
    return [[event(str(next(numbers)), f"i{item}", time) for item, time in call] for call in calls]


def run(coroutine):
    return asyncio.run(coroutine)


async def write_all(url, rules, calls):
    async with writing(url, rules) as writer:
        for call in calls:
            await writer.append(call, NOW)


FROM_SERVER = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FROM_SERVER
@given(calls_of_one_user(items=30, times=8))
def test_a_history_is_what_was_sent_in_the_order_of_training_whatever_order_it_came_in(client, redis_url, calls):
    client.flushdb()
    calls = as_events(calls)
    run(write_all(redis_url, RULES, calls))
    first = {}
    for one in in_order(one for call in calls for one in call):
        first.setdefault(one.item_id, one)
    expected = list(first.values())
    events = stored(client).events
    assert events["timestamp"].tolist() == [one.timestamp for one in expected]
    assert events["item_hash"].tolist() == hashes(*(one.item_id for one in expected))


@FROM_SERVER
@given(calls_of_one_user(items=30, times=8))
def test_kept_repeats_are_in_the_same_order(client, redis_url, calls):
    client.flushdb()
    calls = as_events(calls)
    run(write_all(redis_url, HistoryRules(500, 90, keep_repeats=True), calls))
    distinct = {(one.item_id, one.timestamp): one for call in calls for one in call}
    expected = in_order(distinct.values())
    assert stored(client).events["item_hash"].tolist() == hashes(*(one.item_id for one in expected))


@FROM_SERVER
@given(calls_of_one_user(items=200, times=50), st.integers(1, 8), st.booleans())
def test_no_item_that_a_user_ever_had_is_forgotten(client, redis_url, calls, limit, keep_repeats):
    client.flushdb()
    calls = as_events(calls)
    run(write_all(redis_url, HistoryRules(limit, 90, keep_repeats), calls))
    history = stored(client)
    ever = {one.item_id for call in calls for one in call}
    catalogue = np.sort(item_hashes(("Books", f"i{n}") for n in range(1000)))
    hidden = {*history.events["item_hash"].tolist(), *catalogue[history.seen.among(catalogue)].tolist()}
    assert hidden == set(hashes(*ever))  # and, with so few, no other is hidden
    assert len(history.events) <= limit
    assert (np.diff(history.events["timestamp"].astype(np.int64)) >= 0).all()


async def test_a_set_of_seen_items_that_is_full_gives_up_bits_and_no_items(redis_url, client):
    items = [f"i{n}" for n in range(34_000)]
    async with writing(redis_url, HistoryRules(10, 90, keep_repeats=False)) as writer:
        for start in range(0, len(items), 1000):
            batch = [event(item, item, NOW + start) for item in items[start : start + 1000]]
            assert await writer.append(batch, NOW) == ["taken"] * 1000
    history = stored(client)
    assert history.seen.width == 3
    catalogue = np.sort(np.array(hashes(*items), dtype=np.uint64))
    assert len(
        np.union1d(history.seen.among(catalogue), np.searchsorted(catalogue, history.events["item_hash"]))
    ) == len(items)


async def test_a_history_that_was_loaded_in_bulk_is_written_on_and_read_with_what_it_had(
    redis_url, tmp_path, monkeypatch
):
    from syncrec.cli import main

    rows = "".join(f"u1,i{n},Books,{1000 + n}\n" for n in range(30))
    (tmp_path / "events.csv").write_text("user_id,item_id,domain,timestamp\n" + rows)
    monkeypatch.setenv("SYNCREC_HISTORY_LIMIT", "10")
    assert await asyncio.to_thread(main, ["load-histories", str(tmp_path / "events.csv"), "--redis", redis_url]) == 0
    async with writing(redis_url, HistoryRules(10, 90, keep_repeats=False)) as writer:
        await writer.append([event("1", "new", 2000), event("2", "i3", 2001)], NOW)
    async with open_histories(redis_url, 5000, 1) as store:
        history = await store.look_up("u1")
    assert history.events["item_hash"].tolist() == hashes(*(f"i{n}" for n in range(21, 30)), "new")
    catalogue = np.sort(np.array(hashes(*(f"i{n}" for n in range(21))), dtype=np.uint64))
    assert len(history.seen.among(catalogue)) == 21
