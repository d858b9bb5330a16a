"""Does the effect wear off, or grow, as users get used to a variant? Click-through by days since first exposure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from service.experiments.analysis.ratio import FEWEST_USERS, LEVEL, Interval
from service.experiments.analysis.sums import Sums
from service.experiments.analysis.warnings import Novelty

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# A day with fewer clicks in an arm has no logarithm worth having.
FEWEST_CLICKS: Final = 50
ALARM_LEVEL: Final = 5e-3


@dataclass(frozen=True)
class DayEffect:
    """Relative lift of click-through on this day since exposure (0: the day of it), with a 95 % interval."""

    day: int
    lift: float
    interval: Interval


@dataclass(frozen=True)
class Trend:
    """days: the effect by day. change_per_day: of log lift, with a 95 % interval; None below two days."""

    days: tuple[DayEffect, ...]
    change_per_day: float | None
    interval: Interval | None
    p: float | None


def columns(day: int) -> tuple[str, str]:
    """Names of the columns of a day since exposure: clicks, impressions."""
    return f"clicks_day_{day}", f"impressions_day_{day}"


def by_exposure_day(
    user: Integers, day: Integers, clicks: Floats, impressions: Floats, users: int, days: Sequence[int]
) -> dict[str, Floats]:
    """Columns of these days, each [users], from one row for each user and day.

    Args:
        user: number of the user of each row, from 0, [rows]. users: how many there are.
        day: days since its first exposure, [rows].
        clicks, impressions: [rows].
    """
    found: dict[str, Floats] = {}
    for of_day in days:
        rows = day == of_day
        for name, values in zip(columns(of_day), (clicks, impressions), strict=True):
            found[name] = np.bincount(user[rows], values[rows], minlength=users).astype(np.float64)
    return found


def trend(control: Sums, treatment: Sums, days: Sequence[int]) -> Trend:
    """Over these days, whose columns both have; nothing below `FEWEST_USERS` an arm. The same users on several days are no independent points: their
    covariance is in the test.
    """
    days = [day for day in days if min(arm.total(columns(day)[0]) for arm in (control, treatment)) >= FEWEST_CLICKS]
    if not days or min(control.n, treatment.n) < FEWEST_USERS:
        return Trend((), None, None, None)
    (a, a_covariance), (b, b_covariance) = (_log_rates(arm, days) for arm in (control, treatment))
    lifts, covariance = b - a, a_covariance + b_covariance
    z = float(norm.isf(LEVEL / 2))
    errors = np.sqrt(np.diag(covariance))
    effects = tuple(
        DayEffect(day, float(np.expm1(lift)), Interval(float(np.expm1(lift - z * e)), float(np.expm1(lift + z * e))))
        for day, lift, e in zip(days, lifts, errors, strict=True)
    )
    if len(days) < 2:
        return Trend(effects, None, None, None)
    weights = 1 / errors**2
    centred = np.asarray(days) - np.average(days, weights=weights)
    contrast = weights * centred / (weights @ centred**2)
    slope, error = float(contrast @ lifts), float(np.sqrt(contrast @ covariance @ contrast))
    return Trend(effects, slope, Interval(slope - z * error, slope + z * error), float(2 * norm.sf(abs(slope) / error)))


def novelty(variant: str, found: Trend) -> Novelty | None:
    """The warning, if the effect changes."""
    if found.change_per_day is None or found.interval is None or found.p is None or found.p >= ALARM_LEVEL:
        return None
    return Novelty(
        severity="caution", variant=variant, change_per_day=found.change_per_day, interval=found.interval, p=found.p
    )


def _log_rates(arm: Sums, days: Sequence[int]) -> tuple[Floats, Floats]:
    """Logarithm of click-through on each day, [days], and its covariance by the delta method, [days, days]."""
    names = [name for day in days for name in columns(day)]
    means = np.array([arm.total(name) / arm.n for name in names])
    # d log(clicks / impressions) = d clicks / clicks - d impressions / impressions
    gradient = np.zeros((len(days), len(names)))
    for row in range(len(days)):
        gradient[row, 2 * row], gradient[row, 2 * row + 1] = 1 / means[2 * row], -1 / means[2 * row + 1]
    covariance = gradient @ arm.covariance(tuple(names)) @ gradient.T / arm.n
    return np.log(means[0::2] / means[1::2]), covariance
