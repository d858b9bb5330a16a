import math

import numpy as np
import pytest

from training.beyond_accuracy import ListsOfDomain, coverage, diversity, gini, novelty, popularity_lift, shown

# Items 1-2 are of another domain; the domain has items 3-6.
COLUMNS = slice(3, 7)
POPULARITY = np.array([0, 0, 0, 8, 4, 3, 1], dtype=float)  # 16 events
LISTS = np.array([[3, 4], [3, 5], [3, 0]], dtype=np.int32)  # the last one has a single candidate


def histories(*rows):
    return [np.array(row, dtype=np.int32) for row in rows]


def test_shown_counts_places_and_no_padding():
    assert shown(LISTS, COLUMNS).tolist() == [3, 1, 1, 0]


def test_coverage_is_the_share_of_items_in_any_list():
    assert coverage(shown(LISTS, COLUMNS)) == 3 / 4


def test_gini_by_hand():
    # Rising: 0, 1, 1, 3, times -3, -1, 1, 3 = 9, over 4 · 5.
    assert gini(shown(LISTS, COLUMNS)) == pytest.approx(9 / 20)
    assert gini(np.array([2, 2, 2])) == 0
    assert gini(np.array([0, 7, 0, 0])) == pytest.approx(3 / 4)


def test_gini_agrees_with_its_definition_as_mean_difference():
    times_shown = np.random.default_rng(0).integers(0, 9, 25)
    difference = np.abs(times_shown[:, None] - times_shown[None]).mean()
    assert gini(times_shown) == pytest.approx(difference / (2 * times_shown.mean()))


def test_novelty_is_the_mean_information_of_the_places():
    bits = [math.log2(16 / 8)] * 3 + [math.log2(16 / 4), math.log2(16 / 3)]
    assert novelty(LISTS, POPULARITY) == pytest.approx(sum(bits) / 5)


def test_popularity_lift_by_hand():
    # Lists: 6, 5.5, (8). Histories: 3 and 5 -> 5.5; 6 and an item of another domain -> 1; the third knows nothing here.
    lift = popularity_lift(LISTS, histories([3, 5], [6, 1, 0], [2]), POPULARITY)
    assert lift == pytest.approx(((6 + 5.5) / 2) / ((5.5 + 1) / 2))


def test_without_any_history_in_the_domain_there_is_nothing_to_lift_from():
    assert popularity_lift(LISTS, histories([1], [], [0]), POPULARITY) is None


def test_diversity_is_the_share_of_pairs_that_differ():
    category = np.array([0, 9, 9, 1, 1, 2, 0])
    lists = np.array([[3, 4, 5], [3, 5, 6], [3, 6, 0], [3, 4, 0]], dtype=np.int32)
    # 1 1 2: two of three pairs; 1 2 (none): one of one; one alone: no pair; 1 1: none of one.
    assert diversity(lists, category) == pytest.approx((2 / 3 + 1 + 0) / 3)


def test_without_categories_in_the_lists_there_is_no_diversity():
    assert diversity(LISTS, np.zeros(7, dtype=int)) is None
    lists = ListsOfDomain(COLUMNS, POPULARITY, None, histories([3], [3], [3]))
    assert lists.measures(LISTS)["diversity"] is None


def test_all_measures_of_a_domain_together():
    category = np.array([0, 9, 9, 1, 1, 2, 0])
    own = histories([3, 5], [6, 1, 0], [2])
    assert ListsOfDomain(COLUMNS, POPULARITY, category, own).measures(LISTS) == {
        "coverage": coverage(shown(LISTS, COLUMNS)),
        "gini": gini(shown(LISTS, COLUMNS)),
        "novelty": novelty(LISTS, POPULARITY),
        "popularity_lift": popularity_lift(LISTS, own, POPULARITY),
        "diversity": diversity(LISTS, category),
    }
