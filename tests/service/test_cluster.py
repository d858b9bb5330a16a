"""Everything that is kept in Redis, over a real cluster: keys that change together live together."""

import asyncio

import numpy as np
import pytest

from formats.bundle import newest_bundle
from formats.event_ties import item_hashes
from service.history.erase import erase_user
from service.history.store import HistoryStore
from service.history.write import HistoryRules, HistoryWriter, NewEvent
from service.ranking.catalog import read_catalog
from service.ranking.item_states import ItemState, ItemStateStore
from service.ranking.live_popularity import LivePopularity
from service.redis_client.client import open_redis
from tests.service.cluster import redis_cluster

NOW = 1_700_000_000


@pytest.fixture(scope="module")
def nodes():
    with redis_cluster() as nodes:
        yield nodes


@pytest.fixture
async def cluster(nodes):
    nodes.ask_all("FLUSHALL")
    async with open_redis(nodes.url, timeout_ms=20_000, connections=4) as cluster:
        yield cluster


def event(event_id, user_id, item_id):
    return NewEvent(event_id, user_id, "Books", item_id, NOW, is_listed=True)


async def test_events_of_many_users_are_taken_once_each_and_users_are_erased(cluster, nodes):
    users = [*(f"u{n}" for n in range(100)), "}odd", "a}b{c}"]
    writer = HistoryWriter(cluster, 20_000, HistoryRules(10, 90, keep_repeats=False))
    events = [event(str(n), user, f"i{n}") for user in users for n in range(3)]
    assert await writer.append(events, NOW) == ["taken"] * len(events)
    nodes.ask_all("SCRIPT", "FLUSH")
    assert await writer.append(events, NOW) == ["duplicate"] * len(events)
    store = HistoryStore(cluster, 20_000, 2)
    histories = await asyncio.gather(*map(store.look_up, users))
    assert await store.is_available()
    await store.close()
    for user, history in zip(users, histories, strict=True):
        np.testing.assert_array_equal(
            np.sort(history.events["item_hash"]), np.sort(item_hashes(("Books", f"i{n}") for n in range(3)))
        )
        assert await erase_user(cluster, user)
    assert nodes.ask_all("DBSIZE") == [0, 0, 0]


async def test_popularity_is_counted_and_followed(cluster, models):
    bundle = newest_bundle(models)
    catalog = read_catalog(bundle)
    one, other = (LivePopularity(cluster, 7.0, lambda: NOW) for _ in range(2))
    for replica in (one, other):
        await replica.follow(bundle, catalog)
    for domain in catalog.domains:
        one.count(domain, f"new in {domain}", NOW)
    await one.refresh()
    await other.refresh()
    for domain, ranked in zip(catalog.domains, other.view(catalog.model_version).domains, strict=True):
        assert ranked.new_ids == [f"new in {domain}"]
        assert ranked.item_index[0] == -1


async def test_item_states_are_set_and_followed(cluster):
    one, other = ItemStateStore(cluster), ItemStateStore(cluster)
    await one.put("Books", "B1", ItemState(available=False))
    await other.refresh()
    assert not other.current.of("Books", "B1").available
