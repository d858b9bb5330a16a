import math

import numpy as np
import pytest
from tea_tasting.metrics import RatioOfMeans

from formats.errors import WorkFailed
from service.experiments.analysis.plan import MOST_DAYS, days_needed, plan, predicted_power
from service.experiments.analysis.ratio import CTR, IMPRESSIONS_PER_USER, Ratio, adjusted, compare
from service.experiments.analysis.sums import Sums
from tests.service.experiments.analysis.simulated import MANY_DIFFERENT, arm, rejected

PLAIN = Ratio("ctr", "clicks", "impressions")


@pytest.fixture(scope="module")
def pilot():
    return arm(MANY_DIFFERENT, 40_000, 0, np.random.default_rng(0), share_new=1 / 3)


@pytest.mark.parametrize("effect", [0.05, 0.214])
@pytest.mark.parametrize("metric", [PLAIN, CTR])
def test_users_are_those_of_tea_tasting_but_for_the_larger_variance_of_more_clicks(pilot, metric, effect):
    names = ["clicks", "impressions", *(["pre_clicks", "pre_impressions"] if metric.pre else [])]
    theirs = RatioOfMeans(*names, use_t=False, rel_effect_size=effect).solve_power(
        pilot.aggregates(tuple(names)), "n_obs"
    )
    ours = plan(pilot, metric, effect, [100], looks=1)
    assert ours.users == pytest.approx(theirs[0].n_obs * (1 + (1 + effect) ** 2) / 2, rel=1e-3)
    assert ours.level == pytest.approx(0.05)


def test_planned_power_is_the_simulated_one(pilot):
    users, effect, runs = 2800, 0.15, 600
    rng = np.random.default_rng(1)
    pairs = []
    for _ in range(runs):
        a, b = (arm(MANY_DIFFERENT, users // 2, lift, rng, share_new=1 / 3) for lift in (0, effect))
        pairs.append((a, b))
    came = np.mean([a.n + b.n for a, b in pairs])
    for metric, test in ((PLAIN, compare), (CTR, adjusted)):
        predicted = predicted_power(pilot, metric, effect, int(came))
        simulated = rejected([test(*pair, metric) for pair in pairs])
        assert predicted == pytest.approx(simulated, abs=0.03 + 0.02)  # a standard error of 600 runs is 0.02
        assert 0.3 < predicted < 0.95


def test_a_plan_has_the_power_that_was_asked_for(pilot):
    found = plan(pilot, CTR, 0.1, [100], power=0.9, looks=14, treatment_share=0.3)
    assert predicted_power(pilot, CTR, 0.1, found.users, treatment_share=0.3, looks=14) == pytest.approx(0.9, abs=1e-4)
    assert found.baseline == pytest.approx(pilot.total("clicks") / pilot.total("impressions"))
    # Looks and unequal arms cost users, a past saves them.
    assert found.users > plan(pilot, CTR, 0.1, [100], power=0.9, looks=1, treatment_share=0.3).users
    assert found.users > plan(pilot, CTR, 0.1, [100], power=0.9, looks=14).users
    assert found.users < plan(pilot, PLAIN, 0.1, [100], power=0.9, looks=14, treatment_share=0.3).users


def test_days_follow_the_users_who_come_for_the_first_time():
    """Of 1,000 on the first day most come again on the second; only newcomers help."""
    coming = [1000, 300, 200, 100, 100, 100, 100]
    assert days_needed(0, coming) == 0
    assert days_needed(1000, coming) == 1
    assert days_needed(1001, coming) == 2
    assert days_needed(1300, coming, traffic=0.5) == 10  # 950 in 7 days, then 1900 / 7 * 0.5 a day
    assert days_needed(1900 + math.ceil(1900 / 7), coming) == 8 + 1
    assert days_needed(10**9, coming) is None
    assert days_needed(5, [1, *[0] * 7]) is None
    assert days_needed(5, []) is None
    assert days_needed(MOST_DAYS, [1]) == MOST_DAYS
    assert days_needed(MOST_DAYS + 1, [1]) is None


def test_what_cannot_be_planned(pilot):
    with pytest.raises(WorkFailed, match="an effect of 0"):
        plan(pilot, CTR, 0, [100])
    without_clicks = Sums.of({"clicks": [0, 0], "impressions": [10, 10]})
    with pytest.raises(WorkFailed, match="the pilot has no ctr above 0"):
        plan(without_clicks, PLAIN, 0.1, [100])
    assert plan(pilot, IMPRESSIONS_PER_USER, 0.1, [100]).users > 0
