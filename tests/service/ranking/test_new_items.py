"""Items that are newer than the model: where the mixture's counts of recent events would put them, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.bundle import newest_bundle
from service.ranking.catalog import NO_ITEMS, read_catalog
from service.ranking.decay import DecayedCounts
from service.ranking.popularity import most_popular, with_new_items
from service.ranking.popularity_view import Viewer
from service.ranking.query import DomainList, Query
from tests.service.small_bundle import DOMAINS, ids

WEIGHTS = {"Books": [0.5, 0.2], "Toys": [0.0, 0.0]}  # Games: no mixture
HALF_LIVES = [4.0, 60.0]
NONE_NEW = (NO_ITEMS,) * len(DOMAINS)


@pytest.fixture(scope="module")
def catalog(models):
    return read_catalog(newest_bundle(models))


def counted(events):
    """events: (item id, days ago) of one domain."""
    counts = DecayedCounts(HALF_LIVES, today=1000)
    for item_id, age in events:
        counts.add(counts.rows([item_id]), np.array([1000 - age]), np.array([1.0]))
    return counts


def slow_share(events, item_id):
    """The mixture's share of a new item of Books: its decayed count relative to those of all known items."""
    share = 0.0
    for weight, half_life in zip(WEIGHTS["Books"], HALF_LIVES, strict=True):
        known = sum(0.5 ** (age / half_life) for name, age in events if name in ids("Books"))
        own = sum(0.5 ** (age / half_life) for name, age in events if name == item_id)
        share += weight * own / known if known else 0.0
    return share


events = st.lists(
    st.tuples(st.sampled_from([*ids("Books")[:4], "new1", "new2", "new3"]), st.integers(0, 40)), max_size=30
)


@settings(deadline=None)
@given(
    events,
    st.lists(st.floats(0, 1, width=32), max_size=12, unique=True),
    st.integers(1, 12),
    st.sets(st.sampled_from(["new1", "new2", "new3"])),
)
def test_they_stand_where_their_share_puts_them(catalog, happened, scores, k, excluded):
    viewer = Viewer(catalog, [0, 1], ranked_row=0, weights=WEIGHTS)
    view = viewer.view({"Books": counted(happened)})
    ranked = view.domains[0]
    model = [DomainList([], np.zeros(0, np.float32)) for _ in DOMAINS]
    own = sorted(scores, reverse=True)[:k]
    model[0] = DomainList(list(range(1, len(own) + 1)), np.array(own, dtype=np.float32))
    exclude_new = (ranked.new_items(excluded), NO_ITEMS, NO_ITEMS)
    query = Query(NO_ITEMS, NO_ITEMS, (False,) * 3, NO_ITEMS, k, exclude_new)
    found = with_new_items(model, view, query)[0]
    new = {name for name, _ in happened} & {"new1", "new2", "new3"} - excluded
    wanted = [(score, str(place)) for place, score in enumerate(own, start=1)]
    wanted += [(share, name) for name in new if (share := slow_share(happened, name)) > 0]
    shown = [str(index) if index > 0 else found.new_ids[-1 - index] for index in found.item_index]
    best = sorted(wanted, key=lambda one: -one[0])[:k]
    np.testing.assert_allclose(found.scores, [score for score, _ in best], rtol=1e-5, atol=1e-9)
    by_name = {name: score for score, name in wanted}
    np.testing.assert_allclose(found.scores, [by_name[name] for name in shown], rtol=1e-5, atol=1e-9)
    assert len(set(shown)) == len(shown)


def test_a_domain_whose_mixture_counts_nothing_gets_none(catalog):
    viewer = Viewer(catalog, [0, 1], ranked_row=0, weights=WEIGHTS)
    counts = {domain: counted([("new1", 0), (ids(domain)[0], 0)]) for domain in DOMAINS}
    view = viewer.view(counts)
    model = [DomainList([1], np.array([0.1], dtype=np.float32)) for _ in DOMAINS]
    lists = with_new_items(model, view, Query(NO_ITEMS, NO_ITEMS, (False,) * 3, NO_ITEMS, 5, NONE_NEW))
    assert [len(one.item_index) for one in lists] == [2, 1, 1]


def test_where_only_some_items_may_be_answered_they_are_none_of_them(catalog):
    view = Viewer(catalog, [0, 1], ranked_row=0, weights=WEIGHTS).view({"Books": counted([("new1", 0), ("B0", 0)])})
    model = [DomainList([1], np.array([0.1], dtype=np.float32)) for _ in DOMAINS]
    query = Query(NO_ITEMS, NO_ITEMS, (True, False, False), np.array([1], dtype=np.int32), 5, NONE_NEW)
    assert with_new_items(model, view, query)[0] is model[0]
    assert most_popular(view, query)[0].item_index == [1]


def test_a_view_does_not_know_the_new_items_of_a_later_one(catalog):
    viewer = Viewer(catalog, [0, 1], ranked_row=0, weights=WEIGHTS)
    counts = counted([("new1", 0)])
    early = viewer.view({"Books": counts}).domains[0]
    counts.add(counts.rows(["new2"]), np.array([1000]), np.array([1.0]))
    late = viewer.view({"Books": counts}).domains[0]
    assert early.new_items(["new1", "new2", "B1"]).tolist() == [-1]
    assert late.new_items(["new1", "new2", "B1"]).tolist() == [-1, -2]
