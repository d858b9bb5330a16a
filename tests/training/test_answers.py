import math

import numpy as np
import pytest

import training.ranking
from tests.reference.cases import CATALOGUE, FIRST, SIZES, by_history, cases_of, constant, domain_of, random_cases
from tests.reference.ranks import best, mid_rank
from training.answers import PLACES, answer
from training.ranking import rank_cases


def slow_scores(cases, case, exclude_seen=True):
    """Item -> score of one case's candidates."""
    domain = domain_of(int(cases.target[case])) - 1
    (row,) = by_history(cases.take([case]), domain).tolist()
    scores = dict(zip(range(FIRST[domain], FIRST[domain] + SIZES[domain]), row, strict=True))
    dropped = set(cases.history(case).tolist()) - {int(cases.target[case])} if exclude_seen else ()
    return {item: score for item, score in scores.items() if item not in dropped}


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_everything_agrees_with_a_loop_over_cases_and_candidates(exclude_seen):
    cases = random_cases(60)
    found = answer(cases, by_history, CATALOGUE, exclude_seen, kind="logits")
    for case in range(60):
        scores = slow_scores(cases, case, exclude_seen)
        target = int(cases.target[case])
        items = list(scores)
        assert found.ranks[case] == mid_rank(list(scores.values()), items.index(target))
        first = [item for _, item in best(scores, items, PLACES)]
        assert found.first[case].tolist() == first + [0] * (PLACES - len(first))
        top = max(scores.values())
        assert found.confidence[case] == pytest.approx(math.exp(top) / sum(map(math.exp, scores.values())))
        ties = [item for item in items if scores[item] == top]
        assert found.right[case] == (1 / len(ties) if target in ties else 0)
    assert not found.stood_in.any()
    assert found.sampled_ranks is None


def test_ranks_are_those_of_rank_cases():
    cases = random_cases(40)
    np.testing.assert_array_equal(
        answer(cases, by_history, CATALOGUE, True).ranks, rank_cases(cases, by_history, CATALOGUE, True)
    )


def test_a_cold_target_has_no_place_no_list_and_no_confidence():
    found = answer(cases_of(([1], 0, 2), ([1], 3)), constant, CATALOGUE, True, sampled=2, kind="logits")
    assert np.isposinf(found.ranks).tolist() == [True, False]
    assert np.isposinf(found.sampled_ranks).tolist() == [True, False]
    assert found.first[0].tolist() == [0] * PLACES
    assert np.isnan(found.confidence).tolist() == np.isnan(found.right).tolist() == [True, False]


def test_where_popularity_stands_in_there_is_a_list_but_no_confidence():
    found = answer(cases_of(([0], 7), ([6], 7)), constant, CATALOGUE, True, kind="logits")
    assert found.stood_in.tolist() == [True, False]
    assert found.first[0].tolist() == list(range(6, 16))  # popularity falls with the item
    assert np.isnan(found.confidence).tolist() == np.isnan(found.right).tolist() == [True, False]


def test_scores_that_are_shares_need_no_softmax():
    def shares(cases, domain):
        return np.tile(np.arange(SIZES[domain], dtype=np.float32), (len(cases), 1))

    found = answer(cases_of(([6], 18)), shares, CATALOGUE, True, kind="shares")
    assert found.confidence == pytest.approx([2 / (0 + 1 + 2)])


def test_scores_of_no_probability_have_no_confidence():
    found = answer(random_cases(5), by_history, CATALOGUE, True)
    assert np.isnan(found.confidence).all()
    assert np.isnan(found.right).all()


def test_lists_of_the_whole_catalogue_mix_domains():
    found = answer(cases_of(([0], 7)), constant, CATALOGUE, True, whole_catalogue=True)
    assert found.first[0].tolist() == [6, 7, 8, 1, 9, 10, 2, 3, 11, 12]  # 12, 11, 10, 9, 9, 8, 7, 7, 7, 6


@pytest.mark.parametrize("sampled", [1, 4, 11, 50])
def test_sampled_ranks_are_repeatable_and_no_worse_than_the_full_ones(sampled):
    cases = random_cases(60)
    first, again = (answer(cases, by_history, CATALOGUE, True, sampled=sampled) for _ in range(2))
    np.testing.assert_array_equal(first.sampled_ranks, again.sampled_ranks)
    assert (first.sampled_ranks >= 1).all()
    assert (first.sampled_ranks <= np.minimum(first.ranks, sampled + 1)).all()
    np.testing.assert_array_equal(first.ranks, rank_cases(cases, by_history, CATALOGUE, True))


def test_every_scorer_meets_the_same_drawn_candidates():
    """One item alone beats the target: whoever is drawn, exactly one of eleven such scorers notices."""
    cases = cases_of(*[([1], 6)] * 100)
    beaten = []
    for item in range(7, 18):

        def only(cases, domain, item=item):
            scores = constant(cases, domain)
            scores[:, item - 6] = 1
            return scores

        beaten.append(answer(cases, only, CATALOGUE, False, sampled=1).sampled_ranks == 2)
    assert (np.sum(beaten, axis=0) == 1).all()


@pytest.mark.parametrize("size", [1, 7])
def test_the_number_of_cases_scored_at_once_changes_nothing(monkeypatch, size):
    cases = random_cases(40)
    whole = answer(cases, by_history, CATALOGUE, True, sampled=4, kind="logits")
    monkeypatch.setattr(training.ranking, "CASES_PER_BATCH", size)
    parts = answer(cases, by_history, CATALOGUE, True, sampled=4, kind="logits")
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-12)
