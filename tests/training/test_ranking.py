import math

import numpy as np
import pytest
import torch

import training.ranking
from formats.history import encode_histories
from model.config import SyNCRecConfig
from model.syncrec import build_syncrec
from tests.reference.cases import (
    CATALOGUE,
    FIRST,
    SIZES,
    by_history,
    cases_of,
    constant,
    domain_of,
    falling,
    random_cases,
)
from tests.reference.network import SlowNetwork, lively
from tests.reference.ranks import mid_rank
from training.metrics import mid_ranks
from training.ranking import cross_scorer, drawn_candidates, rank_cases, scored, single_scorer


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_agree_with_a_loop_over_cases_and_candidates(exclude_seen):
    cases = random_cases(80)
    ranks = rank_cases(cases, by_history, CATALOGUE, exclude_seen)
    for case in range(80):
        history, target = cases.history(case), int(cases.target[case])
        domain = domain_of(target) - 1
        (row,) = by_history(cases.take([case]), domain).tolist()
        first = FIRST[domain]
        if exclude_seen:
            row = [
                -math.inf if first + place in history and first + place != target else score
                for place, score in enumerate(row)
            ]
        assert ranks[case] == mid_rank(row, target - first)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_number_of_cases_scored_at_once_changes_nothing(monkeypatch, size):
    cases = random_cases(40)
    whole = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True)
    monkeypatch.setattr(training.ranking, "CASES_PER_BATCH", size)
    parts = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True)
    np.testing.assert_array_equal(parts, whole)


def test_a_constant_scorer_gets_the_rank_of_chance():
    cases = cases_of(([1], 3), ([1], 10), ([1], 18))
    ranks = rank_cases(cases, constant, CATALOGUE, exclude_seen=False)
    assert ranks.tolist() == [1 + (size - 1) / 2 for size in SIZES]


def test_items_of_other_domains_are_no_candidates():
    asked = []

    def record(cases, domain):
        asked.append(domain)
        return constant(cases, domain)

    rank_cases(cases_of(([1], 3), ([1], 19), ([1], 4)), record, CATALOGUE, exclude_seen=False)
    assert asked == [0, 2]


def test_nan_scores_are_an_error():
    def broken(cases, domain):
        return constant(cases, domain) + np.float32(np.nan)

    with pytest.raises(FloatingPointError, match="NaN"):
        rank_cases(cases_of(([1], 3)), broken, CATALOGUE, exclude_seen=True)


def test_seen_items_of_the_domain_are_left_out_but_never_the_target():
    cases = cases_of(([6, 7, 1, 8, 7, 0], 9), ([6, 9, 9], 9), ([1, 2], 9))
    kept = rank_cases(cases, falling, CATALOGUE, exclude_seen=False)
    left_out = rank_cases(cases, falling, CATALOGUE, exclude_seen=True)
    assert kept.tolist() == [4, 4, 4]
    assert left_out.tolist() == [4 - 3, 4 - 1, 4]


def test_a_cold_target_is_a_miss_and_is_not_scored():
    def refuse(cases, domain):
        raise AssertionError

    ranks = rank_cases(cases_of(([1], 0, 2), ([], 0, 1)), refuse, CATALOGUE, exclude_seen=True)
    assert np.isposinf(ranks).all()


def test_popularity_stands_in_for_users_without_a_known_event():
    cases = cases_of(([], 7), ([0, 0], 7), ([6], 7), ([0, 6], 7))
    (batch,) = scored(cases, constant, CATALOGUE, exclude_seen=True)
    assert dict(zip(batch.which.tolist(), batch.stood_in.tolist(), strict=True)) == {
        0: True,
        1: True,
        2: False,
        3: False,
    }
    ranks = rank_cases(cases, constant, CATALOGUE, exclude_seen=True)
    # 7 is the second most popular of its domain; the others are ranked by chance among what is not seen.
    assert ranks.tolist() == [2, 2, 1 + 10 / 2, 1 + 10 / 2]


def test_the_popularity_scorer_is_the_training_popularity_of_the_domain():
    np.testing.assert_array_equal(CATALOGUE.popular(cases_of(([], 1), ([2], 3)), 0), [[9, 7, 7, 5, 1]] * 2)
    np.testing.assert_array_equal(CATALOGUE.popular(cases_of(([], 18)), 2), [[3, 3, 2]])


def test_with_the_whole_catalogue_the_items_of_all_domains_are_candidates_with_their_own_scores():
    cases = random_cases(60)
    found = {}
    for batch in scored(cases, by_history, CATALOGUE, exclude_seen=False, whole_catalogue=True):
        assert batch.first_item == 1
        ranks = mid_ranks(batch.scores, batch.target)
        found.update(zip(batch.which.tolist(), zip(batch.scores, ranks, strict=True), strict=True))
    for case in range(60):
        row = np.concatenate([by_history(cases.take([case]), domain)[0] for domain in range(3)])
        np.testing.assert_array_equal(found[case][0], row)
        assert found[case][1] == mid_rank(row.tolist(), int(cases.target[case]) - 1)


def test_in_the_whole_catalogue_seen_items_of_all_domains_are_left_out():
    (batch,) = scored(cases_of(([1, 7, 18, 0], 7)), falling, CATALOGUE, exclude_seen=True, whole_catalogue=True)
    assert np.flatnonzero(np.isneginf(batch.scores[0])).tolist() == [1 - 1, 18 - 1]  # 7 is the target


def test_in_the_whole_catalogue_popularity_of_all_domains_stands_in():
    (batch,) = scored(cases_of(([0], 7)), constant, CATALOGUE, exclude_seen=True, whole_catalogue=True)
    np.testing.assert_array_equal(batch.scores[0], CATALOGUE.popularity[1:])


ROW = np.array([[5, 3, 9, 1, 3, -np.inf, 7, 2]], dtype=np.float32)


def drawn(scores, target, count, seed=0):
    return drawn_candidates(scores, np.array(target), count, np.random.default_rng(seed))


@pytest.mark.parametrize("count", [1, 3, 5])
def test_drawn_are_the_target_and_exactly_so_many_others_that_are_candidates(count):
    scores = np.repeat(ROW, 50, axis=0)
    found = drawn(scores, [3] * 50, count)
    kept = ~np.isneginf(found)
    assert (kept.sum(axis=1) == 1 + count).all()
    assert kept[:, 3].all()
    np.testing.assert_array_equal(found[kept], scores[kept])


@pytest.mark.parametrize("count", [6, 7, 100])
def test_drawing_as_many_as_there_are_keeps_all(count):
    np.testing.assert_array_equal(drawn(ROW, [3], count), ROW)


def test_candidates_are_drawn_uniformly_and_the_same_whatever_the_scores():
    rows, items = 3000, 8
    one = drawn(np.zeros((rows, items), dtype=np.float32), [2] * rows, 3)
    other = drawn(np.random.default_rng(1).random((rows, items), dtype=np.float32), [2] * rows, 3)
    np.testing.assert_array_equal(np.isneginf(one), np.isneginf(other))
    counts = np.delete((~np.isneginf(one)).sum(axis=0), 2)
    expected, deviation = rows * 3 / 7, math.sqrt(rows * (3 / 7) * (4 / 7))
    assert (np.abs(counts - expected) < 4 * deviation).all()


MAX_HISTORY = 5
HISTORIES = [[1, 7, 18, 3], [9], [0, 20, 0], [2, 3, 4, 6, 7, 8, 19, 1, 0, 11], [5, 0, 6]]


@pytest.fixture(scope="module")
def network():
    config = SyNCRecConfig(SIZES, MAX_HISTORY, dim=8, heads=2, layers=2, experts=3, single_experts=1, dropout=0.4)
    return lively(build_syncrec(config))


@pytest.fixture(scope="module")
def slow(network):
    return SlowNetwork(network, SIZES, heads=2, single_experts=1)


def arrays(histories):
    return [np.array(history, dtype=np.int32) for history in histories]


def asked(histories, domain):
    return cases_of(*((history, FIRST[domain]) for history in histories))


def products(network, user, domain):
    items = range(FIRST[domain], FIRST[domain] + SIZES[domain])
    return [float(user @ network.item_embedding.weight[item]) for item in items]


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_cdsr_scores_the_newest_known_events_of_all_domains(network, slow, domain):
    with torch.no_grad():
        found = cross_scorer(network, CATALOGUE, MAX_HISTORY)(asked(HISTORIES, domain), domain)
        for row, history in zip(found, HISTORIES, strict=True):
            window = [item for item in history if item][-MAX_HISTORY:]
            np.testing.assert_allclose(row, products(network, slow.cross(window)[-1], domain), atol=1e-9)


@pytest.mark.parametrize("domain", [0, 1, 2])
def test_sdsr_scores_the_targets_domain_of_the_same_window(network, slow, domain):
    with torch.no_grad():
        found = single_scorer(network, CATALOGUE, MAX_HISTORY)(asked(HISTORIES, domain), domain)
        for row, history in zip(found, HISTORIES, strict=True):
            window = [item for item in history if item][-MAX_HISTORY:]
            own = [item for item in window if domain_of(item) - 1 == domain]
            np.testing.assert_allclose(row, products(network, slow.single(own, domain)[-1], domain), atol=1e-9)


def test_scorers_read_what_encode_histories_gives(network):
    scores = cross_scorer(network, CATALOGUE, MAX_HISTORY)(asked(HISTORIES, 1), 1)
    encoded = torch.from_numpy(encode_histories(arrays(HISTORIES), MAX_HISTORY, sum(SIZES)))
    with torch.no_grad():
        expected = network.cross_next(encoded) @ network.item_vectors()[CATALOGUE.columns(1)].T
    np.testing.assert_allclose(scores, expected.numpy(), rtol=0, atol=1e-10)


def test_the_networks_ranks_do_not_depend_on_the_batch(network, monkeypatch):
    cases, scorer = random_cases(40), cross_scorer(network, CATALOGUE, MAX_HISTORY)
    whole = rank_cases(cases, scorer, CATALOGUE, exclude_seen=True)
    monkeypatch.setattr(training.ranking, "CASES_PER_BATCH", 1)
    alone = rank_cases(cases, scorer, CATALOGUE, exclude_seen=True)
    np.testing.assert_array_equal(whole, alone)
