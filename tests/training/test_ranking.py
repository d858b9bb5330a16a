import math

import numpy as np
import pytest
import torch

import training.ranking
from formats.history import encode_histories
from model.config import SyNCRecConfig
from model.syncrec import build_syncrec
from tests.reference.network import SlowNetwork, lively
from tests.reference.ranks import mid_rank
from training.cases import Cases
from training.ranking import Catalogue, cross_scorer, rank_cases, single_scorer

SIZES = (5, 12, 3)  # items 1-5, 6-17, 18-20
FIRST = (1, 6, 18)
CATALOGUE = Catalogue(SIZES, np.array([0, 9, 7, 7, 5, 1, *range(12, 0, -1), 3, 3, 2], dtype=np.float32))


def domain_of(item):
    return sum(item >= first for first in FIRST)  # from 1


def cases_of(*given):
    """(history, target) or, for a cold target, (history, 0, its domain)."""
    events, domains, start, position = [], [], [], []
    for history, target, *domain in given:
        start.append(len(events))
        events += [*history, target]
        domains += [*(domain_of(item) if item else 1 for item in history), *(domain or [domain_of(target)])]
        position.append(len(events) - 1)
    return Cases(
        item_index=np.array(events, dtype=np.int32),
        domain=np.array(domains, dtype=np.int16),
        timestamp=np.arange(len(events)),
        user_offsets=np.array([*start, len(events)]),
        user=np.arange(len(given)),
        start=np.array(start),
        position=np.array(position),
    )


def random_cases(count, seed=0):
    random = np.random.default_rng(seed)
    return cases_of(
        *((random.integers(1, 21, random.integers(1, 9)).tolist(), int(random.integers(1, 21))) for _ in range(count))
    )


def by_history(cases, domain):
    """A scorer with many ties that depends on the whole history."""
    columns = CATALOGUE.columns(domain)
    items = np.arange(columns.start, columns.stop)
    return np.stack([(items * (1 + h.sum()) + len(h)) % 4 for h in cases.histories()]).astype(np.float32)


def constant(cases, domain):
    columns = CATALOGUE.columns(domain)
    return np.zeros((len(cases), columns.stop - columns.start), dtype=np.float32)


@pytest.mark.parametrize("exclude_seen", [False, True])
def test_ranks_agree_with_a_loop_over_cases_and_candidates(exclude_seen):
    cases = random_cases(80)
    ranks, stood_in = rank_cases(cases, by_history, CATALOGUE, exclude_seen)
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
    assert not stood_in.any()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("sampled", [None, 4])
def test_the_number_of_cases_scored_at_once_changes_nothing(monkeypatch, size, sampled):
    cases = random_cases(40)
    whole, _ = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True, sampled=sampled)
    monkeypatch.setattr(training.ranking, "CASES_PER_BATCH", size)
    parts, _ = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True, sampled=sampled)
    np.testing.assert_array_equal(parts, whole)


def test_a_constant_scorer_gets_the_rank_of_chance():
    cases = cases_of(([1], 3), ([1], 10), ([1], 18))
    ranks, _ = rank_cases(cases, constant, CATALOGUE, exclude_seen=False)
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


def falling(cases, domain):
    """The lower the item, the better."""
    columns = CATALOGUE.columns(domain)
    return np.tile(-np.arange(columns.start, columns.stop, dtype=np.float32), (len(cases), 1))


def test_seen_items_of_the_domain_are_left_out_but_never_the_target():
    cases = cases_of(([6, 7, 1, 8, 7, 0], 9), ([6, 9, 9], 9), ([1, 2], 9))
    kept, _ = rank_cases(cases, falling, CATALOGUE, exclude_seen=False)
    left_out, _ = rank_cases(cases, falling, CATALOGUE, exclude_seen=True)
    assert kept.tolist() == [4, 4, 4]
    assert left_out.tolist() == [4 - 3, 4 - 1, 4]


def test_a_cold_target_is_a_miss_and_is_not_scored():
    def refuse(cases, domain):
        raise AssertionError

    ranks, stood_in = rank_cases(cases_of(([1], 0, 2), ([], 0, 1)), refuse, CATALOGUE, exclude_seen=True)
    assert np.isposinf(ranks).all()
    assert not stood_in.any()


def test_popularity_stands_in_for_users_without_a_known_event():
    cases = cases_of(([], 7), ([0, 0], 7), ([6], 7), ([0, 6], 7))
    ranks, stood_in = rank_cases(cases, constant, CATALOGUE, exclude_seen=True)
    assert stood_in.tolist() == [True, True, False, False]
    # 7 is the second most popular of its domain; the others are ranked by chance among what is not seen.
    assert ranks.tolist() == [2, 2, 1 + 10 / 2, 1 + 10 / 2]


def test_the_popularity_scorer_is_the_training_popularity_of_the_domain():
    np.testing.assert_array_equal(CATALOGUE.popular(cases_of(([], 1), ([2], 3)), 0), [[9, 7, 7, 5, 1]] * 2)
    np.testing.assert_array_equal(CATALOGUE.popular(cases_of(([], 18)), 2), [[3, 3, 2]])


@pytest.mark.parametrize("sampled", [1, 4, 11, 50])
def test_sampled_ranks_are_repeatable_and_between_one_and_one_more_than_drawn(sampled):
    cases = random_cases(60)
    first, _ = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True, sampled=sampled)
    again, _ = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True, sampled=sampled)
    np.testing.assert_array_equal(first, again)
    assert (first >= 1).all()
    assert (first <= sampled + 1).all()


def test_exactly_so_many_candidates_are_drawn():
    """With equal scores the rank is 1 + N/2, whatever is drawn."""
    ranks, _ = rank_cases(cases_of(*[([1], 10)] * 20), constant, CATALOGUE, exclude_seen=True, sampled=4)
    assert ranks.tolist() == [1 + 4 / 2] * 20


def test_seen_items_are_not_drawn():
    cases = cases_of(([6, 7, 8, 9, 10, 11, 12], 17))  # 13 to 16 are left beside the target
    ranks, _ = rank_cases(cases, falling, CATALOGUE, exclude_seen=True, sampled=11)
    assert ranks.tolist() == [1 + 4]


def test_sampling_as_many_as_there_are_is_full_ranking():
    cases = random_cases(60)
    full, _ = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True)
    sampled, _ = rank_cases(cases, by_history, CATALOGUE, exclude_seen=True, sampled=100)
    np.testing.assert_array_equal(full, sampled)


def test_candidates_are_drawn_uniformly_and_the_same_for_every_scorer():
    cases = cases_of(*[([1], 6)] * 600)

    def rising(cases, domain):
        return -falling(cases, domain)

    above, _ = rank_cases(cases, rising, CATALOGUE, exclude_seen=False, sampled=1)
    assert (above == 2).all()  # the target is the lowest item: whatever is drawn is better
    drawn = []
    for item in range(7, 18):  # who was drawn? the item that alone beats the target

        def only(cases, domain, item=item):
            scores = constant(cases, domain)
            scores[:, item - 6] = 1
            scores[:, 0] = 0.5
            return scores

        ranks, _ = rank_cases(cases, only, CATALOGUE, exclude_seen=False, sampled=1)
        drawn.append(ranks == 2)
    assert (np.sum(drawn, axis=0) == 1).all()  # one and the same draw, seen by eleven scorers
    counts = np.sum(drawn, axis=1)
    expected, deviation = 600 / 11, math.sqrt(600 * (1 / 11) * (10 / 11))
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
    whole, _ = rank_cases(cases, scorer, CATALOGUE, exclude_seen=True)
    monkeypatch.setattr(training.ranking, "CASES_PER_BATCH", 1)
    alone, _ = rank_cases(cases, scorer, CATALOGUE, exclude_seen=True)
    np.testing.assert_array_equal(whole, alone)
