import numpy as np
import pytest

import training.memory_based.ease
from formats.errors import WrongUse
from tests.reference.memory_based import days_of, ease, items_of, random_timed_dataset, write_timed_dataset
from training.cases import contexts
from training.memory_based.ease import EaseConfig, fit_ease

WHOLE = EaseConfig(regularization=1.5, max_items=100)
POPULAR = EaseConfig(regularization=0.5, max_items=3)
EVERY = pytest.mark.parametrize("config", [WHOLE, POPULAR])


@pytest.fixture(params=["many users", "few users"])
def dataset(tmp_path, request):
    """More users than items in every domain, or fewer."""
    if request.param == "many users":
        return random_timed_dataset(tmp_path / "timed.dataset", seed=0)
    few = [
        [(1, 0), (2, 0), (10, 1), (2, 2), (7, 3)],
        [(2, 0), (3, 0), (11, 1), (12, 3), (7, 4)],
        [],
        [(8, 0), (2, 1), (1, 2), (6, 3)],
        [(2, 1), (7, 2)],
    ]
    later = [
        [(3, 20), ((0, 1), 20), (13, 21), (2, 22)],
        [],
        [(4, 21), (5, 22)],
        [(12, 21), (14, 21)],
        [(16, 22), (16, 23)],
    ]
    return write_timed_dataset(
        tmp_path / "few.dataset", {"Books": 9, "Games": 6, "Toys": 1}, train=few, validation=later, test=later
    )


@EVERY
@pytest.mark.parametrize("part", ["validation", "test"])
def test_scores_agree_with_the_printed_algorithm(dataset, config, part):
    cases, fitted = contexts(dataset, part), fit_ease(dataset, config)
    for domain in range(3):
        found = fitted.scorer(cases, domain)
        assert found.dtype == np.float32
        slow = [ease(dataset, config, cases, case, domain) for case in range(len(cases))]
        np.testing.assert_allclose(found, slow, atol=1e-6)


def test_items_beyond_the_largest_inverse_follow_below_by_popularity(tmp_path):
    rows = [[(1, 0), (5, 0)], [(5, 0), (3, 0)], [(4, 0), (3, 0), (5, 0)], [(4, 0), (1, 0)], [(4, 0), (5, 0)]]
    dataset = write_timed_dataset(tmp_path / "five.dataset", {"Books": 5}, train=rows, validation=[[(2, 9)]])
    scores = fit_ease(dataset, EaseConfig(1.0, max_items=2)).scorer(contexts(dataset, "validation"), 0)[0]
    assert min(scores[3], scores[4]) > scores[0]  # 4 and 5 are the most popular
    assert scores[0] == scores[2] > scores[1]


@pytest.mark.parametrize("max_items", [4, 5])
def test_as_many_items_or_users_as_may_be_inverted_are_all_modelled(tmp_path, max_items):
    """Five items and four users: nothing is below the others."""
    rows = [[(1, 0), (2, 0)], [(2, 0), (3, 0)], [(3, 0), (4, 0)], [(5, 0), (1, 0)]]
    dataset = write_timed_dataset(tmp_path / "five.dataset", {"Books": 5}, train=rows, validation=[[(2, 9)]])
    assert fit_ease(dataset, EaseConfig(1.0, max_items)).domains[0].modelled.tolist() == [0, 1, 2, 3, 4]


def test_the_smaller_matrix_is_inverted(dataset):
    fitted = fit_ease(dataset, WHOLE)
    for domain, items in enumerate(dataset.items_per_domain):
        users = sum(any(item in items_of(dataset, domain) for item, _ in row) for row in days_of(dataset, "train"))
        assert len(fitted.domains[domain].precision.inverse) == min(users, items)


def test_diagonals_do_not_depend_on_the_block(dataset, monkeypatch):
    cases = contexts(dataset, "test")
    whole = fit_ease(dataset, WHOLE).scorer(cases, 0)
    monkeypatch.setattr(training.memory_based.ease, "USERS_PER_BLOCK", 1)
    np.testing.assert_allclose(fit_ease(dataset, WHOLE).scorer(cases, 0), whole, atol=1e-7)


def test_a_domain_without_training_events_has_nothing_to_say(tmp_path):
    rows = [[(1, 0), (2, 0)], [(2, 0)]]
    dataset = write_timed_dataset(
        tmp_path / "x.dataset", {"Books": 2, "Toys": 3}, train=rows, validation=[[(4, 9), (3, 9)]]
    )
    assert not fit_ease(dataset, WHOLE).scorer(contexts(dataset, "validation"), 1).any()


def test_a_history_without_items_scores_nothing(dataset):
    cases = contexts(dataset, "validation")
    empty = np.flatnonzero(cases.start == cases.position)
    assert len(empty)
    assert not fit_ease(dataset, WHOLE).scorer(cases.take(empty), 0).any()


@pytest.mark.parametrize(
    ("values", "field"),
    [((0.0, 10), "regularization"), ((float("nan"), 10), "regularization"), ((1.0, 0), "max_items")],
)
def test_a_config_that_cannot_be_meant_is_refused(values, field):
    with pytest.raises(WrongUse, match=field):
        EaseConfig(*values)
