"""Definitions in Redis: every replica follows, changes do not cross, restarts are survived, a broken one harms nobody."""

import asyncio

import msgspec
import pytest
import redis
from redis.asyncio import Redis
from redis.exceptions import ConnectionError  # noqa: A004

from service.errors import ChangeRefused, InvalidRequest, StoreUnavailable
from service.experiments.definition import BUCKETS, Experiment, Variant
from service.experiments.store import KEY, ExperimentStore
from service.history.embedded import embedded_redis

AB = (Variant("a"), Variant("b"))


def wanted(key="one", **fields):
    return Experiment(key=key, variants=AB, **fields)


@pytest.fixture
async def connection(redis_url):
    async with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def stores(connection):
    """Two replicas."""
    return ExperimentStore(connection), ExperimentStore(connection)


async def test_a_change_reaches_every_replica(stores):
    one, other = stores
    made = await one.put(wanted(state="running", traffic=0.5))
    assert one.current.by_key["one"] == made
    await other.refresh()
    assert other.current.by_key["one"] == made
    users = [f"u{n}" for n in range(100)]
    assert [one.current.assigner.assignments(u) for u in users] == [
        other.current.assigner.assignments(u) for u in users
    ]
    await other.put(msgspec.structs.replace(made, state="stopped"))
    await one.refresh()
    assert one.current.by_key["one"].state == "stopped"
    assert one.current.assigner.assignments("u1") == []


async def test_without_a_change_a_refresh_is_one_question_and_changes_nothing(stores, redis_url):
    one, other = stores
    await one.put(wanted())
    await other.refresh()
    current = other.current
    with redis.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        await other.refresh()
        stats = client.info("commandstats")
    assert stats["cmdstat_hget"]["calls"] == 1
    assert "cmdstat_hgetall" not in stats
    assert other.current is current


async def test_what_changes_nothing_is_no_change(stores):
    one, _ = stores
    made = await one.put(wanted(state="running"))
    version = one.current.version
    assert await one.put(made) == made
    assert one.current.version == version


async def test_replicas_that_start_experiments_at_the_same_time_never_share_buckets(connection):
    stores = [ExperimentStore(connection) for _ in range(8)]
    results = await asyncio.gather(
        *(store.put(wanted(f"e{n}", state="running", traffic=0.15)) for n, store in enumerate(stores)),
        return_exceptions=True,
    )
    refused = [one for one in results if isinstance(one, Exception)]
    assert [type(one) for one in refused] == [ChangeRefused] * 2
    await stores[0].refresh()
    held = [b for one in stores[0].current.by_key.values() for first, end in one.segments for b in range(first, end)]
    assert len(held) == len(set(held)) == 6 * 0.15 * BUCKETS


async def test_a_refused_change_changes_nothing(stores):
    one, other = stores
    made = await one.put(wanted(state="running", traffic=0.5))
    with pytest.raises(ChangeRefused):
        await other.put(msgspec.structs.replace(made, traffic=0.1))
    with pytest.raises(InvalidRequest):
        await other.put(wanted("two", layer=""))
    await other.refresh()
    assert other.current.by_key == {"one": made}


async def test_removing(stores):
    one, other = stores
    made = await one.put(wanted(state="running"))
    with pytest.raises(ChangeRefused):
        await one.delete("one")
    await one.put(msgspec.structs.replace(made, state="stopped"))
    assert await one.delete("one")
    assert not await one.delete("one")
    await other.refresh()
    assert not other.current.by_key


@pytest.mark.parametrize("raw", [b"{", b"\xff", b'{"key": "torn", "variants": []}', b'{"key": "torn", "new_field": 1}'])
async def test_a_broken_definition_is_told_and_the_others_go_on(stores, redis_url, raw, caplog):
    one, other = stores
    made = await one.put(wanted(state="running", traffic=0.5))
    with redis.Redis.from_url(redis_url) as client:
        client.hset(KEY, "torn", raw)
        client.hincrby(KEY, ":version", 1)
    await other.refresh()
    assert other.current.by_key == {"one": made}
    assert "torn" in caplog.text
    assert other.current.assigner.assignment("torn", "u1").reason == "ERROR"
    # It may hold users of the layer, so nobody else is given any.
    with pytest.raises(ChangeRefused, match="'torn' cannot be read"):
        await one.put(wanted("two", state="running", traffic=0.1))
    await one.put(wanted("two"))
    assert await one.delete("torn")
    assert (await one.put(wanted("two", state="running", traffic=0.1))).state == "running"


async def test_a_redis_that_lost_everything_is_followed_too(stores, redis_url):
    one, other = stores
    await one.put(wanted())
    await other.refresh()
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    await one.put(wanted("two"))
    await other.refresh()
    assert other.current.by_key.keys() == {"two"}


async def test_definitions_survive_a_restart_and_without_redis_the_last_known_ones_hold(tmp_path):
    with embedded_redis(tmp_path) as url:
        async with Redis.from_url(url) as connection:
            store = ExperimentStore(connection)
            made = await store.put(wanted(state="running"))
    with pytest.raises(ConnectionError):
        await store.refresh()
    with pytest.raises(StoreUnavailable):
        await store.put(wanted("two"))
    assert store.current.by_key == {"one": made}
    with embedded_redis(tmp_path) as url:
        async with Redis.from_url(url) as connection:
            store = ExperimentStore(connection)
            await store.refresh()
            assert store.current.by_key == {"one": made}
