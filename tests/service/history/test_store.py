"""HistoryStore over a real server: one round trip, shared by requests, and nobody ever gets another's history."""

import asyncio
import random
import time

import numpy as np
import pytest
import redis

from formats.errors import WorkFailed
from formats.event_ties import item_hashes
from service.errors import HistoryUnavailable
from service.history.keys import history_key
from service.history.store import open_histories
from tests.service.running import RedisProcess, delaying_proxy, store_history


@pytest.fixture(scope="module")
def tcp_redis():
    with RedisProcess() as process:
        yield process


def put(url, count):
    """Users u0, u1, ... of whom each has one event of an item with its own name."""
    for n in range(count):
        store_history(url, f"u{n}", [("Books", f"u{n}")])


def is_of(user_id, events):
    return events is not None and events["item_hash"].tolist() == item_hashes([("Books", user_id)]).tolist()


def test_the_user_is_the_hash_tag_of_the_key():
    assert history_key("u1") == "syncrec:history:{u1}"


async def test_a_stored_history_is_read_oldest_first(redis_url):
    store_history(redis_url, "u1", [("Books", "a"), ("Toys", "b")])
    async with open_histories(redis_url, 5000, 2) as store:
        events = await store.read("u1")
    np.testing.assert_array_equal(events["item_hash"], item_hashes([("Books", "a"), ("Toys", "b")]))


async def test_an_unknown_user_has_none(redis_url):
    async with open_histories(redis_url, 5000, 2) as store:
        assert await store.read("nobody") is None


async def test_a_value_that_is_no_history_is_unavailable(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        client.set(history_key("u1"), b"something")
    async with open_histories(redis_url, 5000, 2) as store:
        with pytest.raises(HistoryUnavailable):
            await store.read("u1")


async def test_requests_that_arrive_together_share_round_trips(redis_url):
    put(redis_url, 300)
    with redis.Redis.from_url(redis_url) as client:
        async with open_histories(redis_url, 5000, 2) as store:
            await store.read("u0")
            before = client.info("stats")["total_commands_processed"]
            found = await asyncio.gather(*(store.read(f"u{n}") for n in range(300)))
            commands = client.info("stats")["total_commands_processed"] - before - 1
    assert all(is_of(f"u{n}", events) for n, events in enumerate(found))
    assert commands <= 5


async def test_two_thousand_at_once_are_all_served_over_two_connections(redis_url):
    put(redis_url, 100)
    async with open_histories(redis_url, 10_000, 2) as store:
        found = await asyncio.gather(*(store.read(f"u{n % 100}") for n in range(2000)))
    assert all(is_of(f"u{n % 100}", events) for n, events in enumerate(found))


async def test_a_server_that_is_away_is_told_at_once_and_used_again_when_it_is_back(tcp_redis):
    put(tcp_redis.url, 1)
    async with open_histories(tcp_redis.url, 5000, 2) as store:
        assert is_of("u0", await store.read("u0"))
        tcp_redis.kill()
        start = time.monotonic()
        for _ in range(5):
            with pytest.raises(HistoryUnavailable):
                await store.read("u0")
        assert time.monotonic() - start < 5
        assert not await store.is_available()
        tcp_redis.start()
        put(tcp_redis.url, 1)
        assert is_of("u0", await store.read("u0"))
        assert await store.is_available()


async def test_a_server_that_stalls_costs_each_request_its_timeout_and_no_more(tcp_redis):
    put(tcp_redis.url, 100)
    async with open_histories(tcp_redis.url, 500, 2) as store:
        tcp_redis.stop()
        try:
            start = time.monotonic()
            results = await asyncio.gather(*(store.read(f"u{n}") for n in range(100)), return_exceptions=True)
            elapsed = time.monotonic() - start
        finally:
            tcp_redis.resume()
        assert all(isinstance(result, HistoryUnavailable) for result in results)
        assert 0.5 <= elapsed < 1.7
        await asyncio.sleep(0.5)
        assert is_of("u7", await store.read("u7"))


async def test_cancelled_and_late_reads_never_leave_an_answer_for_somebody_else(tcp_redis):
    """The way redis-py once leaked histories (2023): cancel while the answer is under way, then read with the next."""
    put(tcp_redis.url, 50)
    chance = random.Random(1)
    with delaying_proxy(tcp_redis.port, 0.03) as port:
        async with open_histories(f"redis://127.0.0.1:{port}/0", 60, 2) as store:

            async def ask(user_id):
                try:
                    async with asyncio.timeout(chance.choice([0.005, 0.02, 0.031, 0.05, 1])):
                        return user_id, await store.read(user_id)
                except (TimeoutError, HistoryUnavailable):
                    return user_id, None

            answers = []
            for _ in range(25):
                users = [f"u{chance.randrange(50)}" for _ in range(20)]
                answers += await asyncio.gather(*map(ask, users))
                await asyncio.sleep(chance.choice([0, 0.01, 0.04]))
    got = [(user_id, events) for user_id, events in answers if events is not None]
    assert len(got) > 50
    assert all(is_of(user_id, events) for user_id, events in got)


async def test_a_read_that_is_cancelled_does_not_disturb_those_that_share_its_round_trip(tcp_redis):
    put(tcp_redis.url, 3)
    with delaying_proxy(tcp_redis.port, 0.05) as port:
        async with open_histories(f"redis://127.0.0.1:{port}/0", 5000, 1) as store:
            reads = [asyncio.create_task(store.read(f"u{n}")) for n in range(3)]
            await asyncio.sleep(0.02)
            reads[1].cancel()
            assert is_of("u0", await reads[0])
            assert is_of("u2", await reads[2])


async def test_a_pause_of_our_own_process_is_not_held_against_redis(redis_url):
    put(redis_url, 1)
    async with open_histories(redis_url, 100, 1) as store:
        await store.read("u0")
        read = asyncio.create_task(store.read("u0"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.3)  # noqa: ASYNC251 (the answer comes meanwhile, and so does the end of the time for it)
        assert is_of("u0", await read)


async def test_closing_ends_what_is_under_way(tcp_redis):
    with delaying_proxy(tcp_redis.port, 1) as port:
        async with open_histories(f"redis://127.0.0.1:{port}/0", 300, 1) as store:
            read = asyncio.create_task(store.read("u0"))
            await asyncio.sleep(0.05)
        with pytest.raises(HistoryUnavailable):
            await read


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost"])
async def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(WorkFailed, match="SYNCREC_REDIS_URL"):
        async with open_histories(url, 50, 1):
            pass
