"""How many users an experiment needs, and how many days until they have come."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.stats import norm

from formats.errors import WorkFailed
from service.experiments.analysis.ratio import LEVEL, Ratio, has_past
from service.experiments.analysis.sequential import nominal_levels
from service.experiments.analysis.sums import Sums

POWER: Final = 0.8
MOST_DAYS: Final = 365
WEEK: Final = 7


@dataclass(frozen=True)
class Plan:
    """What it takes to see an effect.

    baseline: value of the metric in the pilot. minimum_effect: relative, the smallest that shall be found.
    users: in all arms together. days: until so many have come; None if that takes more than a year.
    level: two-sided, at the last of the looks.
    """

    metric: str
    baseline: float
    minimum_effect: float
    power: float
    level: float
    users: int
    days: int | None


def plan(
    pilot: Sums,
    metric: Ratio,
    minimum_effect: float,
    new_users_per_day: Sequence[int],
    traffic: float = 1.0,
    treatment_share: float = 0.5,
    looks: int = 14,
    power: float = POWER,
) -> Plan:
    """From users of a time as long as the experiment shall be.

    Args:
        pilot: their sums. With a past (`pre_` columns) CUPED is counted on, as the report will use it.
        minimum_effect: relative.
        new_users_per_day: users never seen before on each day of the pilot; few come late, most come early.
        traffic: share of users that enter the experiment. treatment_share: of those.
        looks: that will be taken; their bounds cost some power.
    Raises:
        WorkFailed: the pilot has no value of the metric, or the effect is zero.
    """
    if minimum_effect == 0:
        raise WorkFailed("no number of users is enough to find an effect of 0")
    baseline = _baseline(pilot, metric)
    level = _last_level(looks)
    z = float(norm.isf(level / 2) + norm.isf(1 - power))
    spread = _unit_variance(pilot, metric, minimum_effect, treatment_share)
    users = math.ceil(z**2 * spread / (minimum_effect * baseline) ** 2)
    return Plan(
        metric.name, baseline, minimum_effect, power, level, users, days_needed(users, new_users_per_day, traffic)
    )


def predicted_power(
    pilot: Sums, metric: Ratio, effect: float, users: int, treatment_share: float = 0.5, looks: int = 1
) -> float:
    """Probability to find this relative effect with so many users in both arms."""
    baseline = _baseline(pilot, metric)
    error = math.sqrt(_unit_variance(pilot, metric, effect, treatment_share) / users)
    away = abs(effect) * baseline / error
    bound = float(norm.isf(_last_level(looks) / 2))
    return float(norm.sf(bound - away) + norm.cdf(-bound - away))


def days_needed(users: int, new_users_per_day: Sequence[int], traffic: float = 1.0) -> int | None:
    """Days until so many have entered; after the pilot they keep coming as in its last week."""
    if users <= 0:
        return 0
    came = np.cumsum(new_users_per_day) * traffic
    enough = np.flatnonzero(came >= users)
    if len(enough):
        return int(enough[0]) + 1
    rate = float(np.mean(new_users_per_day[-WEEK:])) * traffic if len(new_users_per_day) else 0.0
    if rate <= 0:
        return None
    days = len(new_users_per_day) + math.ceil((users - (float(came[-1]))) / rate)
    return days if days <= MOST_DAYS else None


def _baseline(pilot: Sums, metric: Ratio) -> float:
    """What the metric is today."""
    baseline = metric.of(pilot)
    if not baseline or pilot.n < 2:
        raise WorkFailed(f"the pilot has no {metric.name} above 0, so nothing can be planned from it")
    return baseline


def _last_level(looks: int) -> float:
    """What the bounds leave for the last look; a test that may also stop before has a little more power than this."""
    return float(nominal_levels([look / looks for look in range(1, looks + 1)], LEVEL)[-1])


def _unit_variance(pilot: Sums, metric: Ratio, effect: float, treatment_share: float) -> float:
    """Variance of the difference times users in both arms.

    Where users differ, more clicks also vary more: the treatment's standard deviation grows with its mean.
    """
    names: tuple[str, ...] = (metric.numerator, metric.denominator)
    past = metric.before()
    if has_past(pilot, metric):
        names += (past.numerator, past.denominator)
    found = pilot.aggregates(names)
    variance = float(found.ratio_var(metric.numerator, metric.denominator))
    if has_past(pilot, metric):
        explained = float(found.ratio_cov(metric.numerator, metric.denominator, past.numerator, past.denominator))
        variance -= explained**2 / float(found.ratio_var(past.numerator, past.denominator))
    return variance * (1 / (1 - treatment_share) + (1 + effect) ** 2 / treatment_share)
