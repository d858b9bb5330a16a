"""EventLog: nobody waits for it, it is bounded, nothing is lost while Redis is away, and what is lost can be seen."""

import asyncio
from collections import Counter

import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.events.served import decode
from service.events.stream import SERVED_DAYS, STREAM, EventLog, served_rows, served_rows_key
from service.redis_client.client import open_redis
from tests.service.events.rows import DAY, DAY_S, NOON, served, told
from tests.service.servers import running_server

LIMITS = {"queue_limit": 5000, "stream_limit": 100_000}


@pytest.fixture
async def connection(redis_url):
    async with Redis.from_url(redis_url) as connection:
        yield connection


def rows_in(url):
    with redis.Redis.from_url(url) as client:
        return [decode(fields[b"row"]) for _, fields in client.xrange(STREAM)]


async def test_rows_come_in_order_and_are_counted_by_day_and_arm(connection, redis_url):
    log = EventLog(connection, **LIMITS)
    rows = [served(f"u{n}", variant="ab"[n % 2]) for n in range(1200)]
    rows += [told(rows[0]), served(variant=None), served(at=NOON - DAY_S)]
    for row in rows:
        log.put(row)
    assert log.waiting() == len(rows)
    await log.flush()
    assert log.waiting() == 0
    assert rows_in(redis_url) == rows
    # What belongs to no experiment is not reconciled.
    assert await served_rows(connection, [DAY, "2026-09-21", "2026-09-20"]) == {
        DAY: Counter({("exp", "a"): 600, ("exp", "b"): 600}),
        "2026-09-21": Counter({("exp", "a"): 1}),
    }
    assert 0 < await connection.ttl(served_rows_key(DAY)) <= SERVED_DAYS * DAY_S


async def test_counts_are_of_all_processes_and_saying_them_twice_changes_nothing(connection):
    one, other = EventLog(connection, **LIMITS), EventLog(connection, **LIMITS)
    for log in (one, other, one):
        log.put(served())
        await log.flush()
        await log.flush()
    assert (await served_rows(connection, [DAY]))[DAY]["exp", "a"] == 3


async def test_above_its_bound_rows_are_dropped_counted_by_arm_logged_and_missed(connection, redis_url, caplog):
    log = EventLog(connection, queue_limit=10, stream_limit=1000)
    for n in range(16):
        log.put(served(variant="ab"[n % 2]))
    assert log.dropped == {("exp", "a"): 3, ("exp", "b"): 3}
    assert len(caplog.records) == 1
    assert "too many wait for Redis" in caplog.text
    await log.flush()
    assert len(rows_in(redis_url)) == 10
    assert (await served_rows(connection, [DAY]))[DAY].total() == 16


@pytest.mark.parametrize(
    "row", [served("\ud800"), told(item_id="\udfff"), served(recommendation_id="no id"), served(items=[{1}, object()])]
)
async def test_a_row_that_cannot_be_written_raises_nothing_and_keeps_no_other_back(connection, redis_url, row):
    log = EventLog(connection, **LIMITS)
    log.put(row)
    log.put(served())
    assert log.dropped.total() == 1
    await log.flush()
    assert len(rows_in(redis_url)) == 1


async def test_the_stream_is_cut_off_at_about_its_limit(connection):
    log = EventLog(connection, queue_limit=50_000, stream_limit=1000)
    for _ in range(5000):
        log.put(served())
    await log.flush()
    assert 1000 <= await connection.xlen(STREAM) < 1500


async def test_while_redis_is_away_rows_wait_and_then_all_are_there():
    with running_server() as server:
        url = f"redis://127.0.0.1:{server.port}"
        async with open_redis(url, timeout_ms=10_000, connections=1) as connection:
            log = EventLog(connection, **LIMITS)
            log.put(served("before"))
            await log.flush()
            server.kill()
            for n in range(700):
                log.put(served(f"u{n}"))
            for _ in range(3):
                with pytest.raises((RedisError, OSError)):
                    await log.flush()
            assert log.waiting() == 700
            server.start_again()
            await log.flush()
            assert [row.user_id for row in rows_in(url)] == [f"u{n}" for n in range(700)]
            # Totals, so that what Redis lost with its memory is there again.
            assert (await served_rows(connection, [DAY]))[DAY].total() == 701


async def test_a_full_redis_keeps_what_it_took_and_the_rest_comes_later():
    with running_server(maxmemory="3mb", maxmemory_policy="noeviction") as server:
        async with Redis(port=server.port) as connection:
            log = EventLog(connection, queue_limit=50_000, stream_limit=10**6)
            rows = [served(f"u{n}", items=[f"{n}-{i}" for i in range(100)]) for n in range(4000)]
            for row in rows:
                log.put(row)
            with pytest.raises(RedisError):
                await log.flush()
            assert 0 < log.waiting() < 4000
            server.ask("CONFIG", "SET", "maxmemory", "0")
            await log.flush()
            found = Counter(row.user_id for row in rows_in(f"redis://127.0.0.1:{server.port}"))
            assert found.keys() == {f"u{n}" for n in range(4000)}


async def test_closing_sends_what_waits_but_not_for_ever(caplog):
    with running_server() as server:
        async with Redis(port=server.port) as connection:
            log = EventLog(connection, **LIMITS)
            log.put(served())
            await log.close(5)
            assert len(rows_in(f"redis://127.0.0.1:{server.port}")) == 1
            log.put(served())
            server.ask("CLIENT", "PAUSE", 20_000)
            async with asyncio.timeout(10):
                await log.close(0.1)
            assert "1 rows of the event log are lost at the end" in caplog.text
