"""Live popularity over a real server: two replicas count the same, nothing twice, nothing lost, and it stays small."""

import asyncio
from collections import Counter

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from formats.bundle import newest_bundle
from service.ranking import popularity_store
from service.ranking.catalog import read_catalog
from service.ranking.live_popularity import LivePopularity
from service.ranking.popularity_store import PopularityStore
from service.ranking.seed import ALL_TIME_HALF_LIFE_DAYS, DAY_S, Seed, seeds_of
from tests.service.running import RedisProcess
from tests.service.small_bundle import DOMAINS, ids

DAY = 20_000
HALF_LIFE = 7.0
HASH, CHANGES = "syncrec:popularity:{Books}", "syncrec:popularity-changes:{Books}"


class Clock:
    def __init__(self, day=DAY):
        self.now = day * DAY_S + 3600.0

    def __call__(self):
        return self.now

    def pass_days(self, days):
        self.now += days * DAY_S


@pytest.fixture(scope="module")
def bundle(models):
    return newest_bundle(models)


@pytest.fixture(scope="module")
def catalog(bundle):
    return read_catalog(bundle)


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def connection(redis_url):
    async with Redis.from_url(redis_url) as connection:
        yield connection


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def replicas(connection, bundle, catalog, clock):
    """Two processes, as far as Redis can tell."""
    made = [LivePopularity(connection, HALF_LIFE, clock) for _ in range(2)]
    for replica in made:
        await replica.follow(bundle, catalog)
    return made


def ranking(replica, catalog, domain="Books"):
    """Item id -> count, most popular first."""
    ranked = replica.view(catalog.model_version).domains[catalog.domain_number[domain]]
    names = [catalog.item_ids[n] if n > 0 else ranked.new_ids[-1 - n] for n in ranked.item_index.tolist()]
    assert len(set(names)) == len(names)
    return dict(zip(names, ranked.count.tolist(), strict=True))


async def settle(*replicas):
    for _ in range(2):
        for replica in replicas:
            await replica.refresh()


async def test_before_redis_has_answered_the_bundle_s_own_order_is_shown(replicas, catalog):
    assert list(ranking(replicas[0], catalog)) == ids("Books")
    assert list(ranking(replicas[0], catalog, "Games")) == ids("Games")


async def test_what_one_replica_counts_is_in_the_other_s_list_and_new_items_enter(replicas, catalog):
    one, other = replicas
    await settle(one, other)
    before = ranking(other, catalog)
    for _ in range(3):
        one.count("Books", "B30", DAY * DAY_S)
    for _ in range(5):
        one.count("Books", "brand new", DAY * DAY_S)
    await settle(one, other)
    after = ranking(other, catalog)
    assert after == ranking(one, catalog)
    assert after["B30"] == pytest.approx(before["B30"] + 3, rel=1e-6)
    assert after["brand new"] == 5
    assert next(iter(after)) == "brand new"
    assert set(after) == {*ids("Books"), "brand new"}
    assert ranking(one, catalog, "Toys") == ranking(other, catalog, "Toys")


async def test_a_late_event_counts_for_its_own_day_and_weight_fades(replicas, catalog, clock):
    one, other = replicas
    one.count("Books", "late", (DAY - 7) * DAY_S)
    one.count("Books", "now", DAY * DAY_S)
    await settle(one, other)
    assert ranking(other, catalog)["late"] == pytest.approx(0.5)
    clock.pass_days(7)
    await settle(one, other)
    for replica in replicas:
        assert ranking(replica, catalog)["late"] == pytest.approx(0.25)
        assert ranking(replica, catalog)["now"] == pytest.approx(0.5)


async def test_a_replica_that_starts_later_has_the_same_counts(connection, replicas, bundle, catalog, clock):
    for day in range(15):
        replicas[0].count("Books", f"B{day}", (DAY - day) * DAY_S)
    await settle(*replicas)
    later = LivePopularity(connection, HALF_LIFE, clock)
    await later.follow(bundle, catalog)
    await later.refresh()
    assert ranking(later, catalog) == pytest.approx(ranking(replicas[0], catalog), rel=1e-6)


async def test_the_seed_is_planted_once(connection, replicas, bundle, catalog, clock):
    await settle(*replicas)
    seed = seeds_of(bundle)["Books"]
    store = PopularityStore(connection)
    await store.plant("Books", Seed(seed.day, [1.0], ["other"], np.float32([9]).tobytes()))
    loaded = await store.load("Books", [ALL_TIME_HALF_LIFE_DAYS], seed.day)
    np.testing.assert_allclose(loaded.counts.counts[0], range(DOMAINS["Books"], 0, -1))
    assert loaded.counts.item_ids == ids("Books")


def test_a_seed_keeps_its_half_lives_and_scales_the_nearest_for_others():
    seed = Seed(0, [4.0, 60.0], ["a"], np.array([[3.0], [50.0]], dtype="<f4").tobytes())
    at_4, at_7, at_60 = seed.at([4.0, 7.0, 60.0])[:, 0]
    assert (at_4, at_60) == (3, 50)
    assert at_7 == pytest.approx(3 * (1 - 0.5 ** (1 / 4)) / (1 - 0.5 ** (1 / 7)))


async def test_a_change_whose_answer_was_lost_counts_once(connection, client):
    store = PopularityStore(connection)
    for _ in range(3):
        assert await store.count("writer", {"Books": (1, [("a", DAY, 2)])}, DAY) == ["Books"]
    await store.count("other", {"Books": (1, [("a", DAY, 5)])}, DAY)
    loaded = await store.load("Books", [HALF_LIFE], DAY)
    assert loaded.counts.counts[0].tolist() == [7]
    assert client.xlen(CHANGES) == 2


@pytest.mark.parametrize("counted_before", [0, 1, 2])
async def test_an_outage_loses_nothing_that_was_not_in_redis(bundle, catalog, clock, counted_before):
    with RedisProcess() as process, redis.Redis.from_url(process.url) as client:
        async with Redis.from_url(process.url) as connection:
            live = LivePopularity(connection, HALF_LIFE, clock)
            await live.follow(bundle, catalog)
            for _ in range(counted_before):
                live.count("Books", "before", DAY * DAY_S)
                await live.refresh()
            await live.refresh()
            live.count("Books", "a", DAY * DAY_S)
            process.kill()
            with pytest.raises(redis.ConnectionError):
                await live.refresh()
            live.count("Books", "a", DAY * DAY_S)
            assert ranking(live, catalog).get("before", 0) == counted_before
            process.start()  # with nothing in it, so what was counted before is gone
            await live.refresh()
            assert ranking(live, catalog)["a"] == 2
            assert "before" not in ranking(live, catalog)
            assert client.exists("syncrec:popularity-seed:{Books}")


async def test_what_was_read_before_a_failure_is_shown_after_it(replicas, catalog, monkeypatch):
    one, other = replicas
    await settle(one, other)
    one.count("Books", "a", DAY * DAY_S)
    await one.refresh()
    with monkeypatch.context() as patched:
        follow = other._store.follow

        async def fail_after_the_first(domain, loaded):
            if domain != "Books":
                raise redis.ConnectionError
            return await follow(domain, loaded)

        patched.setattr(other._store, "follow", fail_after_the_first)
        with pytest.raises(redis.ConnectionError):
            await other.refresh()
    await other.refresh()
    assert ranking(other, catalog)["a"] == 1


async def test_a_reader_that_fell_behind_the_kept_changes_loads_everything(connection, client, replicas, catalog):
    one, other = replicas
    await settle(one, other)
    for n in range(5):
        one.count("Books", f"n{n}", DAY * DAY_S)
        await one.refresh()
    client.xtrim(CHANGES, maxlen=2)
    await other.refresh()
    assert {f"n{n}" for n in range(5)} <= set(ranking(other, catalog))


FROM_SERVER = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
one_event = st.tuples(
    st.integers(0, 1), st.sampled_from(["Books", "Toys"]), st.sampled_from("abcdef"), st.integers(0, 15)
)


@FROM_SERVER
@given(st.lists(st.lists(one_event, max_size=15), max_size=6), st.integers(0, 5))
def test_every_replica_s_counts_are_the_sum_of_all_events(redis_url, client, rounds, loads_at):
    """Two replicas count and read in turns, one of them loading everything at some moment: all sums are exact."""
    client.flushdb()

    async def go():
        async with Redis.from_url(redis_url) as connection:
            clock = Clock()
            stores = PopularityStore(connection), PopularityStore(connection)
            loaded = {domain: await stores[1].load(domain, [HALF_LIFE], DAY) for domain in ("Books", "Toys")}
            for number, events in enumerate(rounds, start=1):
                for writer in range(2):
                    changes = {}
                    own = Counter(event[1:] for event in events if event[0] == writer)
                    for (domain, item_id, age), count in own.items():
                        changes.setdefault(domain, (number, []))[1].append((item_id, DAY - age, count))
                    await stores[writer].count(f"writer {writer}", changes, DAY)
                for domain, counts in list(loaded.items()):
                    if number == loads_at or not await stores[1].follow(domain, counts):
                        loaded[domain] = await stores[1].load(domain, [HALF_LIFE], DAY)
            assert clock() // DAY_S == DAY
            return loaded

    loaded = asyncio.run(go())
    expected = {"Books": {}, "Toys": {}}
    for _, domain, item_id, age in (event for events in rounds for event in events):
        expected[domain][item_id] = expected[domain].get(item_id, 0) + 0.5 ** (age / HALF_LIFE)
    for domain, found in loaded.items():
        counts = dict(zip(found.counts.item_ids, found.counts.counts[0].tolist(), strict=True))
        assert counts == pytest.approx(expected[domain])


async def test_changes_during_a_load_are_neither_missed_nor_counted_twice(connection, monkeypatch):
    monkeypatch.setattr(popularity_store, "PAGE", 10)
    store, number = PopularityStore(connection), 0
    await store.count("w", {"Books": (0, [(f"i{n}", DAY, 1) for n in range(600)])}, DAY)

    async def write():
        nonlocal number
        for _ in range(60):
            number += 1
            await store.count("w", {"Books": (number, [(f"i{n}", DAY, 1) for n in range(0, 700, 7)])}, DAY)

    writing = asyncio.create_task(write())
    loaded = await store.load("Books", [HALF_LIFE], DAY)
    await writing
    assert await store.follow("Books", loaded)
    counts = dict(zip(loaded.counts.item_ids, loaded.counts.counts[0].tolist(), strict=True))
    assert counts == {f"i{n}": float(n < 600) + 60 * (n % 7 == 0) for n in range(700) if n < 600 or n % 7 == 0}


async def test_old_days_are_counted_together_and_very_old_ones_dropped(connection, client):
    store = PopularityStore(connection)
    for number, age in enumerate(range(700, -1, -1)):
        await store.count("w", {"Books": (number, [("a", DAY - age, 1)])}, DAY - age)
    [packed] = client.hvals(HASH)
    assert len(packed) <= 6 + 6 * (16 + 15 + 8)
    for half_life, within in ((4.0, 0.03), (14.0, 0.02), (60.0, 0.02)):
        loaded = await store.load("Books", [half_life], DAY)
        assert loaded.counts.counts[0, 0] == pytest.approx(
            sum(0.5 ** (age / half_life) for age in range(701)), rel=within
        )


async def test_a_domain_has_a_largest_size_and_tidying_makes_room(connection, client, monkeypatch):
    monkeypatch.setattr(popularity_store, "MAX_ITEMS", 100)
    store = PopularityStore(connection)
    await store.count("w", {"Books": (1, [(f"i{n}", DAY, 1 + n % 7) for n in range(150)])}, DAY)
    assert client.hlen(HASH) == 100
    follower = await store.load("Books", [HALF_LIFE], DAY)
    await store.count("w", {"Books": (2, [(f"new{n}", DAY, 9) for n in range(150)])}, DAY)
    await store.follow("Books", follower)
    assert len(follower.counts.item_ids) <= 100 + popularity_store.CHANGE_SIZE
    await store.tidy("Books", follower)
    assert client.hlen(HASH) == 75
    assert all(int.from_bytes(value[8:12], "little") > 1 for value in client.hvals(HASH))
    await store.count("w", {"Books": (3, [("room", DAY, 1)])}, DAY)
    assert client.hexists(HASH, "room")


async def test_items_that_hardly_count_any_more_are_removed_unless_they_changed_meanwhile(connection, client):
    store = PopularityStore(connection)
    await store.count("w", {"Books": (1, [("old", DAY - 100, 1), ("back", DAY - 100, 1), ("now", DAY, 1)])}, DAY)
    loaded = await store.load("Books", [HALF_LIFE], DAY)
    await store.count("w", {"Books": (2, [("back", DAY, 1)])}, DAY)
    await store.tidy("Books", loaded)
    assert set(client.hkeys(HASH)) == {b"back", b"now"}


async def test_the_graph_s_input_has_the_bundle_s_half_lives_and_places(connection, bundle, catalog, clock):
    from dataclasses import replace

    class Recent(type(bundle)):
        def recent(self):
            rows = np.zeros((2, catalog.items + 2), dtype=np.float32)
            rows[:, 1:-1] = [[8], [80]]
            return rows

    manifest = bundle.manifest.model_copy(update={"recent_half_lives_days": (4.0, 60.0), "created_at": _at(DAY - 4)})
    live = LivePopularity(connection, HALF_LIFE, clock)
    await live.follow(Recent(bundle.path, manifest), replace(catalog, model_version="recent"))
    expected = np.zeros((2, catalog.items + 2), dtype=np.float32)
    expected[:, 1:-1] = [[8 * 0.5], [80 * 0.5 ** (4 / 60)]]
    np.testing.assert_allclose(live.view("recent").recent, expected, rtol=1e-6)
    live.count("Toys", "T5", (DAY - 4) * DAY_S)
    live.count("Toys", "unknown", DAY * DAY_S)
    await settle(live)
    expected[:, catalog.item_index("Toys", "T5")] += [0.5, 0.5 ** (4 / 60)]
    np.testing.assert_allclose(live.view("recent").recent, expected, rtol=1e-6)
    assert live.view("recent").recent.dtype == np.float32


async def test_a_second_model_is_shown_the_same_counts_and_a_model_that_leaves_is_forgotten(replicas, bundle, catalog):
    from dataclasses import replace

    live = replicas[0]
    live.count("Books", "new", DAY * DAY_S)
    await settle(live)
    second = replace(catalog, model_version="second")
    await live.follow(bundle, second)
    await live.refresh()
    assert ranking(live, second) == ranking(live, catalog)
    live.unfollow("second")
    await live.refresh()
    with pytest.raises(KeyError):
        live.view("second")


def _at(day):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(day * DAY_S, UTC)
