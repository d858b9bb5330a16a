"""The breaker alone, and over a real server that goes and comes back."""

import asyncio

import pytest

from service.errors import HistoryUnavailable
from service.history.breaker import FAILURES, Breaker
from service.history.store import HistoryStore, open_histories
from tests.service.running import RedisProcess, store_history


async def never():
    return False


async def test_it_opens_after_failures_in_a_row():
    breaker = Breaker(never, failures=3)
    for _ in range(2):
        breaker.failed()
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert breaker.is_open
    await breaker.close()


async def test_it_closes_when_the_store_answers_and_counts_from_nought():
    answers = iter([False, ZeroDivisionError(), True])

    async def probe():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    breaker = Breaker(probe, failures=1, pause_s=0)
    breaker.failed()
    async with asyncio.timeout(20):
        while breaker.is_open:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert next(answers, None) is None


async def test_closed_for_good_it_asks_no_more():
    breaker = Breaker(never, failures=1, pause_s=0)
    breaker.failed()
    await breaker.close()
    breaker = Breaker(never, failures=1)
    await breaker.close()
    breaker.failed()
    assert not breaker.is_open


@pytest.fixture
def tcp_redis():
    with RedisProcess() as process:
        yield process


async def fail_until_open(store):
    for _ in range(FAILURES):
        with pytest.raises(HistoryUnavailable):
            await store.look_up("u1")
    with pytest.raises(HistoryUnavailable, match="circuit open"):
        await store.look_up("u1")


async def closed_again(store):
    async with asyncio.timeout(20):
        while True:
            try:
                return await store.look_up("u1")
            except HistoryUnavailable:
                await asyncio.sleep(0.02)


async def test_a_server_that_is_away_is_not_asked_any_more_and_used_again_when_it_is_back(tcp_redis):
    async with open_histories(tcp_redis.url, 1000, 2) as store:
        tcp_redis.kill()
        await fail_until_open(store)
        tcp_redis.start()
        store_history(tcp_redis.url, "u1", [("Books", "a")])
        assert len((await closed_again(store)).events) == 1


async def test_a_server_that_stalls_is_not_waited_for_any_more(tcp_redis):
    store_history(tcp_redis.url, "u1", [("Books", "a")])
    async with open_histories(tcp_redis.url, 30, 2) as store:
        tcp_redis.stop()
        try:
            await fail_until_open(store)
        finally:
            tcp_redis.resume()
        assert len((await closed_again(store)).events) == 1


class SlowRedis:
    async def mget(self, keys):
        await asyncio.sleep(0.05)
        return [None for _ in keys]

    async def ping(self):
        await asyncio.sleep(20)


async def test_answers_that_always_come_too_late_open_it_too():
    store = HistoryStore(SlowRedis(), timeout_ms=20, connections=2)
    await fail_until_open(store)
    await store.close()
