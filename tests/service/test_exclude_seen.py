"""From event to answer: nothing that a user ever had is shown, and everything else still is."""

import asyncio

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from formats.bundle import newest_bundle
from service.history.store import open_histories
from service.history.write import HistoryRules, HistoryWriter, NewEvent
from service.ranking.catalog import NO_ITEMS, read_catalog
from service.ranking.popularity import most_popular
from service.ranking.query import Query
from service.ranking.ranker import rank_batch
from service.ranking.session import open_session
from service.users import known_events, seen_before
from tests.service.small_bundle import DOMAINS, all_items
from tests.service.views import NO_COUNTS, view_of

NOW = 1_700_000_000


@pytest.fixture(scope="module")
def bundle(models):
    return newest_bundle(models)


@pytest.fixture(scope="module")
def catalog(bundle):
    return read_catalog(bundle)


@pytest.fixture(scope="module")
def session(bundle):
    return open_session(bundle, "cpu", 1)


async def write_and_look_up(url, calls, rules):
    async with Redis.from_url(url) as connection, open_histories(url, 10_000, 1) as store:
        writer = HistoryWriter(connection, 10_000, rules)
        number = 0
        for call in calls:
            events = []
            for (domain, item_id), timestamp in call:
                number += 1
                events.append(NewEvent(str(number), "u1", domain, item_id, timestamp, is_listed=True))
            await writer.append(events, NOW)
        return await store.look_up("u1")


one_event = st.tuples(st.sampled_from([*all_items(), ("Toys", "gone")]), st.integers(0, 50))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(one_event, min_size=1, max_size=30), min_size=1, max_size=6), st.integers(1, 9), st.booleans())
def test_no_item_that_a_user_ever_had_is_answered_and_every_other_is(
    redis_url, bundle, catalog, session, calls, limit, keep_repeats
):
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    history = asyncio.run(write_and_look_up(redis_url, calls, HistoryRules(limit, 90, keep_repeats)))
    newest = known_events(history, catalog)
    seen = np.concatenate([newest, seen_before(history, catalog)])
    query = Query(newest, seen, (False,) * len(DOMAINS), NO_ITEMS, 100)
    ever = {item for call in calls for item, _ in call}
    for lists in (rank_batch(catalog, session, NO_COUNTS, [query])[0], most_popular(view_of(bundle, catalog), query)):
        answered = {
            (domain, catalog.item_ids[index])
            for domain, answer in zip(catalog.domains, lists, strict=True)
            for index in answer.item_index
        }
        assert answered == set(all_items()) - ever
