import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.stats import norm

from service.experiments.analysis.ratio import (
    CLICKS_PER_REQUEST,
    CTR,
    FEWEST_USERS,
    IMPRESSIONS_PER_USER,
    Ratio,
    adjusted,
    compare,
    estimate,
    variance_cut,
)
from service.experiments.analysis.sums import Sums
from service.experiments.population import Population
from tests.service.experiments.analysis.simulated import MANY_DIFFERENT, arm, before_and_during, rejected

RUNS = 400
# Three standard errors around 5 % in 400 runs would be 1.7 to 8.3; the issue asks for less.
LEAST, MOST = 0.03, 0.072


def naive_p(control, treatment):
    """What counting impressions says: a z-test of two shares."""
    clicks = np.array([control.total("clicks"), treatment.total("clicks")])
    shown = np.array([control.total("impressions"), treatment.total("impressions")])
    share = clicks.sum() / shown.sum()
    z = np.diff(clicks / shown)[0] / math.sqrt(share * (1 - share) * (1 / shown).sum())
    return 2 * norm.sf(abs(z))


@pytest.fixture(scope="module")
def aa():
    """Pairs of arms without any effect; a third of the users are new and have no past."""
    rng = np.random.default_rng(6)
    pair = [arm(MANY_DIFFERENT, 1000, 0, rng, share_new=1 / 3) for _ in range(2 * RUNS)]
    return list(zip(pair[::2], pair[1::2], strict=True))


def test_an_aa_test_is_called_different_five_times_in_a_hundred(aa):
    found = {
        "CTR": rejected([compare(*pair, CTR) for pair in aa]),
        "CTR with CUPED": rejected([adjusted(*pair, CTR) for pair in aa]),
        "clicks per request": rejected([compare(*pair, CLICKS_PER_REQUEST) for pair in aa]),
    }
    assert all(LEAST <= share <= MOST for share in found.values()), found
    # The reason for all this, from the same experiments.
    assert np.mean([naive_p(*pair) < 0.05 for pair in aa]) > 0.3


@pytest.mark.parametrize("lift", [0, 0.05, 0.214])
def test_the_interval_holds_the_true_lift_and_cuped_is_not_biased(lift):
    rng = np.random.default_rng(int(1000 * lift))
    pairs = [
        (arm(MANY_DIFFERENT, 1000, 0, rng, share_new=1 / 3), arm(MANY_DIFFERENT, 1000, lift, rng, share_new=1 / 3))
        for _ in range(RUNS)
    ]
    for effects in ([compare(*pair, CTR) for pair in pairs], [adjusted(*pair, CTR) for pair in pairs]):
        inside = [e.relative_interval.lower <= lift <= e.relative_interval.upper for e in effects]
        assert np.mean(inside) >= 0.94 - 0.005  # half a standard error of 400 runs
        relative = np.array([effect.relative for effect in effects])
        # A ratio of ratios is a little above the truth in small samples: by the control's variance.
        assert relative.mean() == pytest.approx(lift, abs=0.02)
        errors = [effect.standard_error for effect in effects]
        assert np.mean(errors) == pytest.approx(np.std([e.difference for e in effects]), rel=0.1)


def test_the_delta_method_is_weighted_least_squares_with_robust_errors():
    """Regression of each user's CTR on its arm, weighted by impressions; HC0 divides by n where we divide by n - 1."""
    rng = np.random.default_rng(3)
    columns = [before_and_during(MANY_DIFFERENT, 900, lift, rng) for lift in (0, 0.1)]
    impressions = np.concatenate([c["impressions"] for c in columns])
    clicks = np.concatenate([c["clicks"] for c in columns])
    sizes = [len(c["clicks"]) for c in columns]
    in_arm = np.repeat(np.eye(2), sizes, axis=0)
    fitted = sm.WLS(clicks / impressions, in_arm, weights=impressions).fit(cov_type="HC0")
    variance = sum(fitted.cov_params()[i, i] * n / (n - 1) for i, n in enumerate(sizes))
    found = compare(*map(Sums.of, columns), CTR)
    assert found.control == pytest.approx(fitted.params[0], rel=1e-9)
    assert found.difference == pytest.approx(fitted.params[1] - fitted.params[0], rel=1e-9)
    assert found.standard_error == pytest.approx(math.sqrt(variance), rel=1e-9)
    assert found.p == pytest.approx(2 * norm.sf(abs(found.difference) / math.sqrt(variance)), rel=1e-9)
    log_error = math.sqrt(
        sum(fitted.cov_params()[i, i] * n / (n - 1) / fitted.params[i] ** 2 for i, n in enumerate(sizes))
    )
    assert found.relative_interval.lower == pytest.approx(
        fitted.params[1] / fitted.params[0] * math.exp(-norm.isf(0.025) * log_error) - 1, rel=1e-9
    )


def test_cuped_is_the_regression_on_the_linearised_past():
    rng = np.random.default_rng(4)
    columns = [before_and_during(MANY_DIFFERENT, 2000, lift, rng, share_new=0.3) for lift in (0, 0.1)]
    found = adjusted(*map(Sums.of, columns), CTR)

    def linearised(prefix):
        """Clicks less what the impressions of the user let one expect; of each arm by its own ratio."""
        ratios = [c[f"{prefix}clicks"].sum() / c[f"{prefix}impressions"].sum() for c in columns]
        values = [
            (c[f"{prefix}clicks"] - ratio * c[f"{prefix}impressions"]) / c[f"{prefix}impressions"].mean()
            for c, ratio in zip(columns, ratios, strict=True)
        ]
        return ratios, values

    (now, now_values), (past, past_values) = linearised(""), linearised("pre_")
    theta = sm.OLS(np.concatenate(now_values), np.concatenate(past_values)).fit().params[0]
    assert found.difference == pytest.approx(now[1] - now[0] - theta * (past[1] - past[0]), rel=1e-3)
    residuals = [a - theta * b for a, b in zip(now_values, past_values, strict=True)]
    assert found.standard_error == pytest.approx(math.sqrt(sum(r.var(ddof=1) / len(r) for r in residuals)), rel=1e-3)


def test_cuped_halves_the_variance_for_users_who_stay_as_they_are():
    rng = np.random.default_rng(5)
    stable = Population(kappa=20, requests=30)
    pair = [arm(stable, 5000, lift, rng) for lift in (0, 0.1)]
    assert variance_cut(compare(*pair, CTR), adjusted(*pair, CTR)) >= 0.5


def test_few_users_get_no_test():
    rng = np.random.default_rng(0)
    enough, few = arm(MANY_DIFFERENT, 1000, 0, rng), arm(MANY_DIFFERENT, 400, 1, rng)
    assert few.n < FEWEST_USERS <= enough.n
    for found in (compare(enough, few, CTR), compare(few, enough, CTR), adjusted(enough, few, CTR)):
        assert found.status == "too_few_users"
        assert (found.p, found.relative_interval, found.difference_interval) == (None, None, None)
        assert found.relative is not None
    assert estimate(enough, few, CTR).p < 0.05


def test_what_has_no_value_is_undefined():
    def some(clicks, impressions):
        ones = np.ones(600)
        return Sums.of({"clicks": clicks * ones, "impressions": impressions * ones, "users": ones})

    nothing_shown = compare(some(0, 0), some(1, 5), CTR)
    assert (nothing_shown.status, nothing_shown.control, nothing_shown.relative) == ("undefined", None, None)
    nothing_varies = compare(some(1, 10), some(2, 10), CTR)
    assert (nothing_varies.status, nothing_varies.p) == ("undefined", None)
    assert nothing_varies.relative == pytest.approx(1)
    assert compare(some(1, 10), some(2, 20), IMPRESSIONS_PER_USER).status == "undefined"


def test_a_control_without_clicks_leaves_the_difference():
    rng = np.random.default_rng(0)
    none, some = arm(Population(ctr=1e-12), 1000, 0, rng), arm(MANY_DIFFERENT, 1000, 0, rng)
    found = compare(none, some, CTR)
    assert (found.relative, found.relative_interval) == (None, None)
    assert found.difference_interval.lower > 0
    assert found.p < 1e-6
    assert compare(some, none, CTR).relative == -1


def test_without_a_past_there_is_nothing_to_adjust_by():
    rng = np.random.default_rng(0)
    pair = [arm(MANY_DIFFERENT, 1000, 0, rng, share_new=1) for _ in range(2)]
    assert adjusted(*pair, CTR) is None
    assert adjusted(*pair, Ratio("requests", "requests", "users")) is None
