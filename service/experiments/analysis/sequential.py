"""Looks before the end: O'Brien-Fleming bounds by Lan and DeMets' spending, and confidence sequences without an end.

Fractions are of the calendar: days since the start by planned days. Fractions of information would be finer for users
who come once; where the same users return, the intervals stop narrowing long before the test ends, information is
overstated and the error rises to 9 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm

from service.experiments.analysis.ratio import LEVEL

Floats = NDArray[np.float64]

# The level of an early look is never below: O'Brien and Fleming leave nothing to spend on day 1 of 28, and an interval
# needs a level. 100 such looks add 1e-10 to the error.
SMALLEST_LEVEL: Final = 1e-12
# Nodes of Gauss-Legendre between the bounds, and how near looks may be so that the nodes still resolve the step between.
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(400)
NEAREST: Final = 1e-3
# Beyond so many standard deviations there is nothing to integrate.
_FAR: Final = 8.5


def spent(fraction: float, level: float = LEVEL) -> float:
    """Two-sided error that may be spent up to this fraction of the test, O'Brien-Fleming type."""
    return 4 * float(norm.sf(norm.isf(level / 4) / math.sqrt(fraction)))


def nominal_levels(fractions: Sequence[float], level: float = LEVEL) -> Floats:
    """Two-sided level at which each look is tested, so that the error of all looks together is `level`.

    Args:
        fractions: of the test at each look, rising by at least `NEAREST`, in (0, 1].
    Source: Armitage, McPherson and Rowe 1969 for the recursion; Lan and DeMets 1983 for the spending.
    """
    if not fractions or fractions[-1] > 1 or bool(np.any(np.diff([0, *fractions]) < NEAREST * (1 - 1e-9))):
        raise ValueError(f"fractions of the looks must rise by at least {NEAREST}, from 0 up to 1")
    bounds: list[float] = []
    before, used = 0.0, 0.0
    # The score S = Z * sqrt(fraction) is a Brownian motion; its density over the paths that were not stopped.
    places, density = np.zeros(1), np.ones(1)
    for fraction in fractions:
        step = math.sqrt(fraction - before)
        allowed = spent(fraction, level) - used
        bound = _bound(places, density, step, fraction, allowed)
        bounds.append(bound)
        used += _crossing(places, density, step, bound * math.sqrt(fraction))
        inside = min(bound, _FAR) * math.sqrt(fraction)
        nodes = _NODES * inside
        kernel = np.exp(-0.5 * ((nodes[:, None] - places) / step) ** 2) / (step * math.sqrt(2 * math.pi))
        places, density = nodes, (kernel @ density) * _WEIGHTS * inside
        before = fraction
    return np.asarray(2 * norm.sf(bounds), dtype=np.float64)


def _crossing(places: Floats, density: Floats, step: float, score: float) -> float:
    """Probability to be beyond +-score after this step, not having been stopped before."""
    beyond = ndtr((places - score) / step) + ndtr((-places - score) / step)
    return float(beyond @ density)


def _bound(places: Floats, density: Floats, step: float, fraction: float, allowed: float) -> float:
    """The bound of |Z| that spends what is allowed."""
    most = float(norm.isf(SMALLEST_LEVEL / 2))
    root = math.sqrt(fraction)
    if _crossing(places, density, step, most * root) >= allowed:
        return most
    return float(brentq(lambda z: _crossing(places, density, step, z * root) - allowed, 0.0, most, xtol=1e-10))


def always_valid_level(users: int, expected_users: int, level: float = LEVEL) -> float:
    """Two-sided level at which an open-ended test may be looked at whenever one likes: a confidence sequence.

    Args:
        users: so far, in both arms.
        expected_users: where the interval shall be narrowest for its kind.
    Source: Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2021, asymptotic confidence sequence.
    """
    if users == 0:
        return SMALLEST_LEVEL
    log_level = -2 * math.log(level)
    scaled = users * (log_level + math.log(log_level + 1)) / expected_users
    z = math.sqrt(2 * (scaled + 1) / scaled * math.log(math.sqrt(scaled + 1) / level))
    return max(2 * float(norm.sf(z)), SMALLEST_LEVEL)


@dataclass(frozen=True)
class Look:
    """One look at a running experiment.

    number, planned: this look of how many; planned is None for an open-ended test, where number is the day.
    fraction: of the planned time; None for an open-ended test.
    level: at which the effect of this look is tested, and 1 - confidence of its intervals.
    """

    number: int
    planned: int | None
    fraction: float | None
    level: float

    @property
    def last(self) -> bool:
        """The planned end is here."""
        return self.planned is not None and self.number >= self.planned


def daily_look(day: int, planned_days: int, level: float = LEVEL) -> Look:
    """The look after `day` full days of so many planned; on day 0 there is none yet, after the end it stays the last."""
    number = min(day, planned_days)
    if number <= 0:
        return Look(0, planned_days, 0.0, SMALLEST_LEVEL)
    return Look(number, planned_days, number / planned_days, _daily_levels(planned_days, level)[number - 1])


def open_look(day: int, users: int, expected_users: int, level: float = LEVEL) -> Look:
    """A look at a test that has no planned end."""
    return Look(day, None, None, always_valid_level(users, expected_users, level))


@cache
def _daily_levels(planned_days: int, level: float) -> tuple[float, ...]:
    """Of every day; those of the first days do not depend on what comes later."""
    found = nominal_levels([day / planned_days for day in range(1, planned_days + 1)], level)
    return tuple(float(of_day) for of_day in found)
