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
from service.ranking.decay import DecayedCounts
from service.ranking.popularity_view import Viewer
from service.users import ShownEvent, ShownHistory, known_events, new_seen, seen_before, show
from tests.service.small_bundle import all_items, ids


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
    stored = history(newest, seen_of(item_hashes(older)))
    newest_indices = [index for item in newest if (index := catalog.item_index(*item))]
    assert known_events(stored, catalog).tolist() == newest_indices
    assert set(seen_before(stored, catalog).tolist()) == {catalog.item_index(*item) for item in older}


@settings(deadline=None)
@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_every_new_item_that_a_user_had_is_left_out_of_the_ranked_list(catalog, newest, older):
    counts = DecayedCounts([7.0], today=0)
    for first in (0, 11):  # in two rounds, so that the rows grow
        rows = counts.rows([f"new{n}" for n in range(first, first + 11)])
        counts.add(rows, np.zeros(11, dtype=int), 1.0 + rows % 5)
        ranked = viewer_of(catalog).view({"Books": counts}).domains[0]
    had = {("Books", f"new{n}") for n in [*newest, *older]}
    seen = seen_of(item_hashes(("Books", f"new{n}") for n in older))
    exclude = new_seen(history([("Books", f"new{n}") for n in newest], seen), ranked)
    found, count = ranked.best(1000, exclude)
    shown = [catalog.item_ids[index] if index > 0 else ranked.new_ids[-1 - index] for index in found.tolist()]
    assert sorted(shown) == sorted({*ids("Books"), *(f"new{n}" for n in range(22))} - {item for _, item in had})
    assert (np.diff(count) <= 0).all()
    few, _ = ranked.best(5, exclude)
    assert few.tolist() == found[:5].tolist()


_viewers = {}


def viewer_of(catalog):
    """One for all examples: it starts anew for other counts."""
    return _viewers.setdefault(id(catalog), Viewer(catalog, [], ranked_row=0, weights={}))
