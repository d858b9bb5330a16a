import math
from dataclasses import replace

import numpy as np
import pytest

from formats.errors import WrongUse
from tests.reference.memory_based import random_timed_dataset, v_sknn, write_timed_dataset
from training.cases import contexts
from training.memory_based.v_sknn import VSknnConfig, fit_v_sknn

OWN = VSknnConfig(neighbours=2, sample=4, session=3, idf_weight=0.0, cross_domain=False)
CROSS = replace(OWN, cross_domain=True)
CONFIGS = [
    OWN,
    CROSS,
    replace(OWN, neighbours=1, sample=2, session=2, idf_weight=0.5),
    replace(CROSS, neighbours=100, sample=100, session=100, idf_weight=2.0),
]
EVERY = pytest.mark.parametrize("config", CONFIGS)


@pytest.fixture(params=range(4))
def dataset(tmp_path, request):
    return random_timed_dataset(tmp_path / "timed.dataset", seed=request.param)


@EVERY
@pytest.mark.parametrize("part", ["validation", "test"])
def test_scores_agree_with_loops_over_sessions(dataset, config, part):
    cases, fitted = contexts(dataset, part), fit_v_sknn(dataset, config)
    for domain in range(3):
        found = fitted.scorer(cases, domain)
        assert found.dtype == np.float32
        slow = [v_sknn(dataset, config, cases, case, domain) for case in range(len(cases))]
        np.testing.assert_allclose(found, slow, rtol=1e-6)


def scores_of(tmp_path, config, sessions, history, items=9):
    """Scores of items 1, 2, ... after this history, for training sessions of a user each, later ones more recent."""
    train = [[(item, day) for item in session] for day, session in enumerate(sessions)]
    case = [*[(item, 50 + place) for place, item in enumerate(history)], (1, 90)]
    validation = [*([] for _ in train), case]
    dataset = write_timed_dataset(tmp_path / "s.dataset", {"Books": items}, train=train, validation=validation)
    cases = contexts(dataset, "validation")
    return fit_v_sknn(dataset, config).scorer(cases.take(np.array([len(cases) - 1])), 0)[0].tolist()


WIDE = replace(OWN, neighbours=10, sample=10, session=5)


def test_later_shared_items_make_sessions_more_similar_and_votes_heavier(tmp_path):
    scores = scores_of(tmp_path, WIDE, [[1, 5], [2, 6], [3, 7], [1, 3, 8]], history=[1, 2, 3])
    # Positions 1/3, 2/3, 3/3 over three items; the newest shared item is the third, second or first from the end.
    expected = {5: (1 / 9) / 3, 6: (2 / 9) / 2, 7: 3 / 9, 8: (1 + 3) / 9}
    assert [scores[item - 1] for item in expected] == pytest.approx(list(expected.values()))


def test_the_newest_of_a_repeated_item_counts(tmp_path):
    scores = scores_of(tmp_path, WIDE, [[1, 5]], history=[1, 2, 1, 3])
    assert scores[4] == pytest.approx((3 / 4) / 3 / 2)


def test_only_the_most_recent_sessions_that_share_an_item_are_compared(tmp_path):
    sessions = [[2, 1, 5], [1, 6], [1, 7], [4, 8]]
    scores = scores_of(tmp_path, replace(WIDE, sample=2), sessions, history=[1, 2])
    assert [score > 0 for score in scores[4:8]] == [False, True, True, False]


def test_only_the_nearest_vote_and_of_equal_ones_the_more_recent(tmp_path):
    sessions = [[2, 1, 5], [1, 6], [1, 7]]
    scores = scores_of(tmp_path, replace(WIDE, neighbours=2), sessions, history=[1, 2])
    assert [score > 0 for score in scores[4:7]] == [True, False, True]


def test_a_training_history_is_cut_from_the_newest_backwards(tmp_path):
    scores = scores_of(tmp_path, replace(WIDE, session=2), [[9, 1, 5, 2, 6]], history=[1, 2])
    # Sessions [2, 6], [1, 5], [9].
    assert scores[5 - 1] == pytest.approx((1 / 4) / 2)
    assert scores[6 - 1] == pytest.approx(2 / 4)
    assert scores[9 - 1] == 0


def test_rare_items_gain_by_idf(tmp_path):
    sessions = [[1, 5], [1, 6], [7, 6], [8, 6]]
    plain = scores_of(tmp_path / "plain", WIDE, sessions, history=[1])
    with_idf = scores_of(tmp_path / "idf", replace(WIDE, idf_weight=3.0), sessions, history=[1])
    assert with_idf[4] == pytest.approx(plain[4] * (1 + 3 * math.log(4 / 1)))
    assert with_idf[5] == pytest.approx(plain[5] * (1 + 3 * math.log(4 / 3)))


def test_sessions_of_all_domains_lead_from_one_domain_to_another(tmp_path):
    dataset = write_timed_dataset(
        tmp_path / "two.dataset",
        {"Books": 2, "Games": 2},
        train=[[(1, 0), (3, 1)], []],
        validation=[[], [(1, 5), (4, 6)]],
    )
    cases = contexts(dataset, "validation").take(np.array([1]))
    assert fit_v_sknn(dataset, CROSS).scorer(cases, 1).tolist() == [[1, 0]]
    assert not fit_v_sknn(dataset, OWN).scorer(cases, 1).any()


@EVERY
def test_a_domain_without_training_events_and_a_history_without_items_score_nothing(tmp_path, config):
    rows = [[(1, 0), (2, 0)], [(2, 0)], []]
    later = [[(4, 9), (3, 9)], [], [(2, 9)]]
    dataset = write_timed_dataset(tmp_path / "x.dataset", {"Books": 2, "Toys": 3}, train=rows, validation=later)
    cases, fitted = contexts(dataset, "validation"), fit_v_sknn(dataset, config)
    assert not fitted.scorer(cases, 1).any()
    assert not fitted.scorer(cases, 0)[2].any()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"neighbours": 0}, "neighbours"),
        ({"sample": 0}, "sample"),
        ({"session": 0}, "session"),
        ({"idf_weight": -1.0}, "idf"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(values, field):
    with pytest.raises(WrongUse, match=field):
        replace(OWN, **values)
