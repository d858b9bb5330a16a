import numpy as np
import pytest

from formats.errors import WrongUse
from tests.reference.memory_based import random_timed_dataset, recent_popularity, write_timed_dataset
from training.cases import contexts
from training.memory_based.recent_popularity import RecentPopularityConfig, fit_recent_popularity

HALF_LIFE = RecentPopularityConfig(half_life_days=3.5)
WINDOW = RecentPopularityConfig(window_days=4)
SLOW = {HALF_LIFE: lambda age: 0.5 ** (age / 3.5), WINDOW: lambda age: float(age <= 4)}
EVERY = pytest.mark.parametrize("config", [HALF_LIFE, WINDOW])


@pytest.fixture(params=range(3))
def dataset(tmp_path, request):
    return random_timed_dataset(tmp_path / "timed.dataset", seed=request.param)


@EVERY
@pytest.mark.parametrize("part", ["validation", "test"])
def test_scores_agree_with_a_loop_over_all_events(dataset, config, part):
    cases, fitted = contexts(dataset, part), fit_recent_popularity(dataset, config)
    for domain in range(3):
        found = fitted.scorer(cases, domain)
        assert found.dtype == np.float32
        for case in range(len(cases)):
            slow = recent_popularity(dataset, cases, case, domain, SLOW[config])
            np.testing.assert_allclose(found[case], slow, rtol=1e-6)


def counted(tmp_path, config, event_days, case_day):
    """Score of item 1 for a case, its events on these days in training, validation and test of other users."""
    train, validation, test = event_days
    dataset = write_timed_dataset(
        tmp_path / "counted.dataset",
        {"Books": 2},
        train=[[(2, -9)], [(1, day) for day in train]],
        validation=[[(2, case_day)], [(1, day) for day in validation]],
        test=[[], [(1, day) for day in test]],
    )
    cases = contexts(dataset, "validation").take(np.array([0]))
    return float(fit_recent_popularity(dataset, config).scorer(cases, 0)[0, 0])


MICROSECOND = 1 / (86_400 * 10**6)


@pytest.mark.parametrize("part", [0, 1, 2])
@pytest.mark.parametrize(
    ("day", "counts"),
    [(10 - MICROSECOND, 1), (9, 1), (10, 0), (10.2, 0), (10.5, 0), (11 - MICROSECOND, 0), (11, 0), (40, 0)],
)
def test_events_of_every_part_count_until_midnight_before_the_case(tmp_path, part, day, counts):
    days = [[], [], []]
    days[part] = [day]
    assert counted(tmp_path, WINDOW, days, 10.5) == counts
    assert counted(tmp_path / "other", HALF_LIFE, days, 10.5) == pytest.approx(counts * 0.5 ** (1 / 3.5))


@pytest.mark.parametrize(("day", "counts"), [(6, 1), (6 - MICROSECOND, 0)])
def test_a_window_is_whole_utc_days(tmp_path, day, counts):
    assert counted(tmp_path, WINDOW, [[day], [], []], 10.99) == counts


def test_a_case_of_midnight_knows_the_day_that_ended(tmp_path):
    assert counted(tmp_path, WINDOW, [[10 - MICROSECOND, 10], [], []], 10) == 1


def test_neither_history_nor_target_is_read(dataset):
    cases, fitted = contexts(dataset, "test"), fit_recent_popularity(dataset, HALF_LIFE)
    before = fitted.scorer(cases, 0)
    cases.item_index[:] = 5
    np.testing.assert_array_equal(fitted.scorer(cases, 0), before)


def test_before_the_first_event_nothing_is_popular(tmp_path):
    assert counted(tmp_path, HALF_LIFE, [[3], [], []], -9.5) == 0


def test_items_with_the_same_days_are_tied(tmp_path):
    """Whoever chose them, and in whatever order."""
    rows = [[(1, 0), (2, 1), (1, 1)], [(2, 0), (1, 7), (2, 7)]]
    dataset = write_timed_dataset(tmp_path / "tied.dataset", {"Books": 2}, train=rows, validation=[[(1, 9)]])
    scores = fit_recent_popularity(dataset, HALF_LIFE).scorer(contexts(dataset, "validation"), 0)
    assert scores[0, 0] == scores[0, 1] > 0


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({}, "exactly one"),
        ({"half_life_days": 7.0, "window_days": 7}, "exactly one"),
        ({"half_life_days": 0.0}, "half_life_days"),
        ({"half_life_days": float("nan")}, "half_life_days"),
        ({"half_life_days": float("inf")}, "half_life_days"),
        ({"window_days": 0}, "window_days"),
    ],
)
def test_a_config_that_cannot_be_meant_is_refused(values, field):
    with pytest.raises(WrongUse, match=field):
        RecentPopularityConfig(**values)
