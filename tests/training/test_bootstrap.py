import math

import numpy as np
import pytest

import training.bootstrap
from training.bootstrap import FEWEST_USERS, Interval, holm, user_bootstrap


def one_group(values, user, **options):
    return user_bootstrap(np.asarray(values, dtype=float), np.asarray(user), np.zeros(len(values), int), 1, **options)


def clustered(random, users, effect=0.0):
    """Cases whose values hang together within a user, in two groups that share users; true mean `effect` in both."""
    counts = random.integers(1, 6, users)
    user = np.repeat(np.arange(users), counts)
    group = random.integers(0, 2, len(user))
    value = effect + np.repeat(random.normal(0, 1, users), counts) + random.normal(0, 0.5, len(user))
    return value, user, group


def test_means_are_ratios_of_sums_and_macro_their_mean():
    value, user, group = clustered(np.random.default_rng(0), 50)
    means = user_bootstrap(value, user, group, 3, draws=50)
    by_hand = [value[group == number].mean() for number in (0, 1)]
    assert [estimate.value for estimate in means.groups[:2]] == pytest.approx(by_hand)
    assert means.groups[2] is None
    assert means.macro.value == pytest.approx(np.mean(by_hand))


def test_draws_agree_with_a_loop_that_repeats_cases(monkeypatch):
    """The same weights, applied case by case; several blocks, so that their seams are seen."""
    value, user, group = clustered(np.random.default_rng(1), 30)
    monkeypatch.setattr(training.bootstrap, "_WEIGHTS", 7 * 30)
    found = user_bootstrap(value, user, group, 2, draws=60, seed=5)
    random = np.random.default_rng(5)
    weights = np.concatenate([random.poisson(1.0, (min(7, 60 - first), 30)) for first in range(0, 60, 7)])
    drawn = []
    for weight in weights:
        repeated, groups = np.repeat(value, weight[user]), np.repeat(group, weight[user])
        drawn.append(np.mean([repeated[groups == number].mean() for number in (0, 1)]))
    assert found.macro.interval.standard_error == pytest.approx(np.std(drawn, ddof=1))
    assert found.macro.interval.low == pytest.approx(np.quantile(drawn, 0.025))
    assert found.macro.interval.high == pytest.approx(np.quantile(drawn, 0.975))


def test_the_95_percent_interval_holds_the_truth_in_95_percent_of_simulated_data_sets():
    random = np.random.default_rng(2)
    truth, trials, held = 0.3, 400, 0
    for seed in range(trials):
        value, user, group = clustered(random, 150, truth)
        interval = user_bootstrap(value, user, group, 2, draws=400, seed=seed).macro.interval
        held += interval.low <= truth <= interval.high
    # Three standard errors of the share, and one point for the percentile interval's known shortness at 150 users.
    assert abs(held / trials - 0.95) < 3 * math.sqrt(0.95 * 0.05 / trials) + 0.01


def test_an_interval_over_cases_instead_of_users_would_hold_it_far_less_often():
    """What the clustering is for: the same data with every case as its own user."""
    random = np.random.default_rng(3)
    held = 0
    for seed in range(150):
        value, user, group = clustered(random, 150)
        interval = user_bootstrap(value, np.arange(len(user)), group, 2, draws=300, seed=seed).macro.interval
        held += interval.low <= 0 <= interval.high
    assert held / 150 < 0.85


def test_without_a_difference_one_in_twenty_is_called_significant():
    random = np.random.default_rng(4)
    p = [user_bootstrap(*clustered(random, 150), 2, draws=400, seed=seed).macro.interval.p for seed in range(400)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 3 * math.sqrt(0.95 * 0.05 / 400) + 0.01
    assert abs(np.mean(np.array(p) < 0.5) - 0.5) < 3 * math.sqrt(0.25 / 400) + 0.02


def test_an_effect_of_the_visible_size_is_found_four_times_in_five():
    random = np.random.default_rng(6)
    visible = np.mean(
        [user_bootstrap(*clustered(random, 150), 2, draws=400, seed=seed).macro.interval.visible for seed in range(40)]
    )
    p = [
        user_bootstrap(*clustered(random, 150, visible), 2, draws=400, seed=seed).macro.interval.p
        for seed in range(400)
    ]
    assert abs(np.mean(np.array(p) < 0.05) - 0.8) < 3 * math.sqrt(0.8 * 0.2 / 400) + 0.02


def test_the_standard_error_is_that_of_a_mean_of_users():
    """One case per user: the textbook formula."""
    value = np.random.default_rng(7).normal(0, 2, 400)
    interval = one_group(value, np.arange(400), draws=4000).groups[0].interval
    assert interval.standard_error == pytest.approx(value.std() / math.sqrt(400), rel=0.05)
    assert interval.visible == pytest.approx((1.96 + 0.84) * interval.standard_error, rel=0.001)


@pytest.mark.parametrize("sign", [1, -1])
def test_p_counts_the_draws_on_the_other_side_of_zero(sign):
    interval = one_group(sign * np.ones(40), np.arange(40), draws=99).groups[0].interval
    assert interval.p == pytest.approx(2 * (1 + 0) / (1 + 99))


def test_no_difference_anywhere_is_p_1_and_no_width():
    assert one_group(np.zeros(40), np.arange(40), draws=99).groups[0].interval == Interval(0, 0, 1, 0)


def test_too_few_users_get_a_mean_without_an_interval_and_take_the_macros_too():
    users = FEWEST_USERS - 1
    means = user_bootstrap(
        np.ones(users + 50), np.arange(users + 50), np.r_[np.zeros(users, int), np.ones(50, int)], 2, draws=20
    )
    assert means.groups[0].value == 1
    assert means.groups[0].interval is None
    assert means.groups[1].interval is not None
    assert means.macro.interval is None
    assert one_group(np.ones(users + 1), np.arange(users + 1), draws=20).groups[0].interval is not None


def test_many_cases_of_few_users_are_still_few_users():
    assert one_group(np.ones(1000), np.arange(1000) % 5, draws=20).groups[0].interval is None


def test_nothing_has_no_mean():
    means = user_bootstrap(np.zeros(0), np.zeros(0, int), np.zeros(0, int), 2, draws=20)
    assert means.groups == (None, None)
    assert means.macro is None


def test_the_same_seed_gives_the_same_interval_and_another_a_slightly_different_one():
    value, user, group = clustered(np.random.default_rng(8), 60)
    one, same, other = (user_bootstrap(value, user, group, 2, draws=200, seed=seed) for seed in (0, 0, 1))
    assert one == same
    assert one.macro.value == other.macro.value
    assert one.macro.interval != other.macro.interval


def test_holm_by_hand():
    # Sorted: .01 x 4, .02 x 3, .03 x 2 = .06 (not below .06), .5 x 1.
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # The second, .02 x 1, may not fall below the first, .015 x 2.
    assert holm([0.015, 0.02]) == pytest.approx([0.03, 0.03])
    assert holm([0.6, 0.9]) == [1, 1]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []
