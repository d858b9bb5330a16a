"""Availability and categories: every replica follows, restarts are survived, and a catalogue sees its own items."""

import numpy as np
import pytest
import redis
from redis.asyncio import Redis

from formats.bundle import newest_bundle
from service.history.embedded import embedded_redis
from service.ranking.catalog import read_catalog
from service.ranking.item_states import STATES, ItemState, ItemStateStore, states_in

OFF = ItemState(available=False)


@pytest.fixture
async def connection(redis_url):
    async with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def stores(connection):
    """Two replicas."""
    return ItemStateStore(connection), ItemStateStore(connection)


async def test_a_change_reaches_every_replica_and_its_version_rises(stores):
    one, other = stores
    first = await one.put("Books", "B1", OFF)
    await other.refresh()
    assert not other.current.of("Books", "B1").available
    assert other.current.of("Toys", "B1").available
    assert other.current.version == first
    second = await other.put("Books", "B1", ItemState(available=True, categories=("red",)))
    assert second > first
    await one.refresh()
    assert one.current.of("Books", "B1") == ItemState(available=True, categories=("red",))


async def test_an_item_that_is_as_in_the_bundle_again_takes_no_place(stores, redis_url):
    one, other = stores
    await one.put("Books", "B1", OFF)
    await other.refresh()
    await one.put("Books", "B1", ItemState())
    await other.refresh()
    assert not other.current.by_item
    with redis.Redis.from_url(redis_url) as client:
        assert not client.exists(STATES)


async def test_without_a_change_a_refresh_is_one_round_trip_and_changes_nothing(stores, redis_url):
    one, other = stores
    await one.put("Books", "B1", OFF)
    await other.refresh()
    current = other.current
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"]
        await other.refresh()
        assert client.info("commandstats")["cmdstat_hmget"]["calls"] == before + 1  # the version
    assert other.current is current


async def test_a_snapshot_does_not_change_while_it_is_used(stores):
    one, other = stores
    await one.put("Books", "B1", OFF)
    await other.refresh()
    snapshot = other.current
    await one.put("Books", "B2", OFF)
    await other.refresh()
    assert snapshot.of("Books", "B2").available
    assert not other.current.of("Books", "B2").available


async def test_thousands_of_items(stores):
    one, other = stores
    for n in range(2500):
        await one.put("Books", f"i{n}", OFF)
    await other.refresh()
    assert len(other.current.by_item) == 2500


async def test_odd_names_stay_apart(stores):
    one, other = stores
    await one.put("a", "b:c", OFF)
    await one.put('x"', "}é\n", OFF)
    await other.refresh()
    assert set(other.current.by_item) == {("a", "b:c"), ('x"', "}é\n")}


async def test_restarts_of_replicas_and_of_redis_are_survived(tmp_path):
    for is_first in (True, False):
        with embedded_redis(tmp_path) as url:
            async with Redis.from_url(url) as connection:
                store = ItemStateStore(connection)
                if is_first:
                    await store.put("Books", "B1", OFF)
                await store.refresh()
                assert not store.current.of("Books", "B1").available


@pytest.mark.parametrize("notices", [True, False])
async def test_a_redis_that_lost_its_data_is_followed_from_the_beginning(stores, redis_url, notices):
    one, other = stores
    for n in range(3):
        await one.put("Books", f"B{n}", OFF)
    await other.refresh()
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    if notices:
        await other.refresh()
        assert not other.current.by_item
    await one.put("Books", "B9", OFF)
    await other.refresh()
    assert list(other.current.by_item) == [("Books", "B9")]


async def test_a_catalogue_sees_its_own_items(stores, models):
    store, _ = stores
    catalog = read_catalog(newest_bundle(models))
    for domain, item_id, state in [
        ("Toys", "T5", OFF),
        ("Books", "B1", OFF),
        ("Books", "unknown", OFF),
        ("Unknown", "B1", OFF),
        ("Books", "B2", ItemState(categories=("red", "new"))),
        ("Books", "B0", ItemState(categories=())),
    ]:
        await store.put(domain, item_id, state)
    await store.refresh()
    seen = states_in(store.current, catalog)
    index = catalog.item_index
    assert seen.version == store.current.version
    assert seen.unavailable.tolist() == [index("Books", "B1"), index("Toys", "T5")]
    red = catalog.in_categories(["red"])
    assert index("Books", "B0") in red
    expected = (set(red.tolist()) - {index("Books", "B0")}) | {index("Books", "B2")}
    assert seen.in_categories(red, ["red"]).tolist() == sorted(expected)
    blue = catalog.in_categories(["blue"])
    assert index("Books", "B2") in blue
    assert seen.in_categories(blue, ["blue"]).tolist() == sorted(set(blue.tolist()) - {index("Books", "B2")})
    assert seen.in_categories(catalog.in_categories(["new"]), ["new"]).tolist() == [index("Books", "B2")]
    assert seen.unavailable.dtype == np.int32


async def test_of_other_items_of_its_domains_a_catalogue_knows_which_are_off_sale(stores, models):
    store, _ = stores
    catalog = read_catalog(newest_bundle(models))
    for domain, item_id, state in (
        ("Books", "newer", OFF),
        ("Books", "newest", OFF),
        ("Books", "moved", ItemState(categories=("red",))),
        ("Garden", "spade", OFF),
        ("Books", "B1", OFF),
    ):
        await store.put(domain, item_id, state)
    await store.refresh()
    found = states_in(store.current, catalog)
    assert {domain: sorted(ids) for domain, ids in found.unavailable_elsewhere.items()} == {
        "Books": ["newer", "newest"]
    }
    assert not found.has_categories
