import math

import numpy as np
import pytest

from formats.errors import WrongUse
from tests.reference.ranks import best, mid_rank
from training.metrics import first_places, hr_at_k, metric_named, mid_ranks, mrr_at_k, ndcg_at_k


def ranks(*values):
    return np.array(values, dtype=np.float64)


def scores(*rows):
    return np.array(rows, dtype=np.float32)


def test_rank_3_is_a_hit_among_5_with_ndcg_one_half_and_reciprocal_rank_one_third():
    assert hr_at_k(ranks(3), 5) == 1
    assert ndcg_at_k(ranks(3), 5) == 1 / math.log2(3 + 1) == 0.5
    assert mrr_at_k(ranks(3), 5) == 1 / 3


def test_the_first_place_is_worth_one_everywhere():
    assert hr_at_k(ranks(1), 1) == ndcg_at_k(ranks(1), 1) == mrr_at_k(ranks(1), 1) == 1


@pytest.mark.parametrize("metric", [hr_at_k, ndcg_at_k, mrr_at_k])
def test_a_miss_counts_as_zero_next_to_a_hit(metric):
    hit, edge, miss, cold = metric(ranks(2, 5, 5.5, math.inf), 5)
    assert hit > 0
    assert edge > 0
    assert miss == cold == 0


def test_101_equal_scores_give_the_middle_rank_51():
    assert mid_ranks(np.zeros((1, 101), dtype=np.float32), np.array([0])) == 1 + 100 / 2 == 51


def test_equal_scores_do_not_depend_on_the_targets_column():
    found = mid_ranks(np.full((4, 4), 2.5, dtype=np.float32), np.arange(4))
    assert found.tolist() == [1 + 3 / 2] * 4


def test_ranks_agree_with_a_loop_on_random_scores_with_ties_and_excluded_items():
    random = np.random.default_rng(0)
    table = random.integers(0, 5, (60, 17)).astype(np.float32)
    table[random.random(table.shape) < 0.3] = -np.inf
    target = random.integers(0, 17, 60)
    table[np.arange(60), target] = random.integers(0, 5, 60)
    expected = [mid_rank(row.tolist(), column) for row, column in zip(table, target, strict=True)]
    assert mid_ranks(table, target).tolist() == expected


def test_an_excluded_item_is_no_tie_of_another():
    assert mid_ranks(scores([1, -np.inf, -np.inf, 2]), np.array([0])) == 2


@pytest.mark.parametrize("column", [0, 1])
def test_nan_is_an_error_wherever_it_stands(column):
    table = scores([1, 2, 3], [1, 2, 3])
    table[1, column] = np.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        mid_ranks(table, np.array([0, 0]))


def test_a_target_that_is_no_candidate_is_an_error():
    with pytest.raises(ValueError, match="not among its candidates"):
        mid_ranks(scores([1, -np.inf]), np.array([1]))


@pytest.mark.parametrize(("name", "value"), [("hr@5", 1), ("ndcg@5", 0.5), ("mrr@5", 1 / 3), ("ndcg@2", 0)])
def test_a_metric_by_its_name(name, value):
    assert metric_named(name)(ranks(3)) == value


@pytest.mark.parametrize("name", ["ndcg", "ndcg@", "ndcg@0", "ndcg@-1", "ndcg@x", "recall@10", "@10", ""])
def test_an_unknown_metric_is_wrong_use(name):
    with pytest.raises(WrongUse, match="as in ndcg@10"):
        metric_named(name)


@pytest.mark.parametrize("k", [1, 4, 17, 20])
def test_first_places_agree_with_sorting_every_row(k):
    random = np.random.default_rng(1)
    table = random.integers(0, 6, (80, 17)).astype(np.float32)  # many ties, also across the last place
    table[random.random(table.shape) < 0.4] = -np.inf
    for row, found in zip(table.tolist(), first_places(table, k).tolist(), strict=True):
        candidates = [column for column in range(17) if row[column] != -math.inf]
        expected = [column for _, column in best(row, candidates, k)]
        assert found == expected + [-1] * (k - len(expected))


def test_equal_scores_list_the_lowest_columns():
    assert first_places(np.zeros((2, 50), dtype=np.float32), 3).tolist() == [[0, 1, 2]] * 2


def test_a_row_without_candidates_has_an_empty_list():
    assert first_places(scores([-np.inf, -np.inf], [1, -np.inf]), 2).tolist() == [[-1, -1], [0, -1]]
