"""A history for people."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.bundle import newest_bundle
from formats.event_ties import item_hashes
from service.history.packed import EVENT, History
from service.history.seen import NOTHING_SEEN, seen_of
from service.ranking.catalog import read_catalog
from service.users import ShownEvent, ShownHistory, all_seen, show
from tests.service.small_bundle import all_items


@pytest.fixture(scope="module")
def catalog(models):
    return read_catalog(newest_bundle(models))


def history(items, seen=NOTHING_SEEN):
    events = np.zeros(len(items), dtype=EVENT)
    events["item_hash"] = item_hashes(items)
    events["timestamp"] = 100 + np.arange(len(items))
    return History(events, seen)


def test_every_item_of_the_catalogue_is_named_with_its_domain(catalog):
    shown = show(history(all_items()), catalog)
    assert [(event.domain, event.item_id) for event in shown.events] == all_items()
    assert [event.timestamp for event in shown.events] == list(range(100, 100 + len(all_items())))


def test_an_item_that_the_model_does_not_know_stays_unnamed_and_older_ones_are_counted(catalog):
    seen = seen_of(item_hashes([("Books", "x"), ("Books", "y")]))
    shown = show(history([("Toys", "T1"), ("Toys", "gone")], seen), catalog)
    assert shown == ShownHistory([ShownEvent("Toys", "T1", 100), ShownEvent(None, None, 101)], 2)


def test_an_empty_history_is_empty(catalog):
    assert show(history([]), catalog) == ShownHistory([], 0)


@settings(deadline=None)
@given(st.lists(st.sampled_from([*all_items(), ("Toys", "gone")])), st.lists(st.sampled_from(all_items())))
def test_every_item_that_a_user_had_is_found_wherever_it_is_stored(catalog, newest, older):
    seen = seen_of(item_hashes(older))
    expected = {catalog.item_index(*item) for item in [*newest, *older]} - {0}
    assert set(all_seen(history(newest, seen), catalog).tolist()) == expected
