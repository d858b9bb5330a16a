import numpy as np
import pytest
from scipy.stats import norm

from service.experiments.analysis.sequential import (
    SMALLEST_LEVEL,
    always_valid_level,
    daily_look,
    nominal_levels,
    open_look,
    spent,
)
from tests.service.experiments.analysis.simulated import MANY_DIFFERENT

LOOKS = 14
FRACTIONS = [look / LOOKS for look in range(1, LOOKS + 1)]


def test_the_published_bounds_of_five_looks():
    """Lan-DeMets O'Brien-Fleming, two-sided 5 %, as printed by ld98 and its successors."""
    published = [4.8769, 3.3569, 2.6803, 2.2898, 2.0310]
    np.testing.assert_allclose(norm.isf(nominal_levels([0.2, 0.4, 0.6, 0.8, 1]) / 2), published, atol=1e-3)


def test_one_look_at_the_end_is_the_fixed_test():
    assert nominal_levels([1.0])[0] == pytest.approx(0.05)
    assert spent(1) == pytest.approx(0.05)
    assert nominal_levels([1.0], 0.01)[0] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "fractions", [FRACTIONS, [0.01, 0.02, 0.5, 0.501, 1.0], [0.3, 1.0], [i / 28 for i in range(1, 29)]]
)
def test_a_random_walk_crosses_in_five_of_a_hundred_whatever_the_looks(fractions):
    rng = np.random.default_rng(0)
    steps = np.sqrt(np.diff([0, *fractions]))
    z = np.cumsum(rng.normal(size=(100_000, len(fractions))) * steps, axis=1) / np.sqrt(fractions)
    crossed = (np.abs(z) > norm.isf(nominal_levels(fractions) / 2)).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.0025)


def test_a_level_is_never_so_small_that_no_interval_has_it():
    assert nominal_levels([0.001, 1])[0] == pytest.approx(SMALLEST_LEVEL)
    assert always_valid_level(1, 10**6) == SMALLEST_LEVEL


@pytest.mark.parametrize("fractions", [[], [0, 1], [0.5, 0.5], [0.6, 0.4], [0.5, 0.5001], [0.5, 1.1]])
def test_looks_that_cannot_be(fractions):
    with pytest.raises(ValueError, match="fractions of the looks must rise"):
        nominal_levels(fractions)


def test_looks_of_a_planned_and_of_an_open_test():
    ninth = daily_look(9, 14)
    assert (ninth.number, ninth.planned, ninth.last) == (9, 14, False)
    assert ninth.fraction == pytest.approx(9 / 14)
    assert ninth.level == pytest.approx(nominal_levels(FRACTIONS)[8])
    assert daily_look(15, 14) == daily_look(14, 14)
    assert daily_look(14, 14).last
    still_open = open_look(30, 4000, 4000)
    assert (still_open.planned, still_open.fraction, still_open.last) == (None, None, False)
    assert still_open.level < 0.05


def looked_daily(lift, staggered, runs, rng, users=800):
    """z of the CTR at each of 14 daily looks at the sums so far, [runs, looks], and users in both arms then, [looks]."""
    ratios, variances, seen = [], [], np.zeros(LOOKS)
    for effect in (0, lift):
        people = MANY_DIFFERENT.draw((runs, users), rng)
        arrival = rng.integers(0, LOOKS, (runs, users)) if staggered else np.zeros((runs, users), dtype=int)
        days = [people.act(rng, time=(arrival <= day) / LOOKS, lift=effect) for day in range(LOOKS)]
        clicks, shown = (np.cumsum([day[name] for day in days], axis=0) for name in ("clicks", "impressions"))
        ratio = clicks.sum(axis=2) / shown.sum(axis=2)
        # Delta method; users who are not here yet are zeros in both and so change nothing but n / (n - 1).
        variances.append(((clicks - ratio[:, :, None] * shown) ** 2).sum(axis=2) / shown.sum(axis=2) ** 2)
        ratios.append(ratio)
        seen += (shown > 0).sum(axis=2).mean(axis=1)
    return ((ratios[1] - ratios[0]) / np.sqrt(variances[0] + variances[1])).T, seen


def stopped(z, levels):
    """Share of the runs that were different at any look."""
    return (2 * norm.sf(np.abs(z)) < levels).any(axis=1).mean()


@pytest.mark.parametrize("staggered", [False, True])
def test_daily_looks_keep_the_error_and_the_power(staggered):
    levels = nominal_levels(FRACTIONS)
    rng = np.random.default_rng(2)
    z, users = looked_daily(0.0, staggered, 400, rng)
    sequence = [always_valid_level(int(seen), int(users[-1])) for seen in users]
    assert stopped(z, levels) <= 0.06
    assert stopped(z, sequence) <= 0.03
    # What the same looks do to a test that was meant for one.
    assert stopped(z, 0.05) > 0.1
    z, _ = looked_daily(0.22, staggered, 300, rng)
    fixed = stopped(z[:, -1:], 0.05)
    assert 0.5 < fixed < 0.99
    assert stopped(z, levels) >= 0.9 * fixed
    assert stopped(z, sequence) < stopped(z, levels)
