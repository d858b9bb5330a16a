"""How sure a mean over cases is when the cases of one user hang together: the bootstrap over users. Numbers in, numbers out.

Every draw weights each user anew and takes all the user's cases along (Field and Welsh 2007, "Bootstrapping clustered data").
The weights are Poisson(1) instead of multinomial (Hanley and MacGibbon 2006): independent of each other, so that a draw
needs only sums per user, and equal in the limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DRAWS: Final = 10_000
# With fewer users the interval is far too narrow (of one user it has no width at all), so none is given.
FEWEST_USERS: Final = 20
# Weights held at a time: 64 MB.
_WEIGHTS: Final = 8_000_000
# Normal quantiles: two-sided 5 %, and 80 % power.
_TWO_SIDED, _POWER = 1.959964, 0.841621


@dataclass(frozen=True)
class Interval:
    """How sure an estimate is.

    low, high: where 95 % of the draws lie (percentile interval).
    p: two-sided, of "the true value is 0"; it is below 0.05 where the interval leaves 0 out.
    standard_error: standard deviation of the draws.
    """

    low: float
    high: float
    p: float
    standard_error: float

    @property
    def visible(self) -> float:
        """The smallest true value that such a test finds different from 0 (5 %, two-sided) with 80 % probability."""
        return (_TWO_SIDED + _POWER) * self.standard_error


@dataclass(frozen=True)
class Estimate:
    """A mean; `interval` is None where there are too few users for one."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Means:
    """Mean of each group (None without cases), and the mean of the means (None without any case)."""

    groups: tuple[Estimate | None, ...]
    macro: Estimate | None


def user_bootstrap(values: Floats, user: Ints, group: Ints, groups: int, draws: int = DRAWS, seed: int = 0) -> Means:
    """Means per group of cases, with their uncertainty over users.

    A user may have cases in several groups; a draw weights them all alike, so the macro mean knows how groups hang together.

    Args:
        values: of each case, [cases].
        user: who the case is of, any numbers, [cases].
        group: from 0, [cases].
        groups: how many there are.
        draws: of the bootstrap.
        seed: of the draws.
    """
    number = np.unique(user, return_inverse=True)[1]
    sums = _per_user(number, group, groups, values)
    counts = _per_user(number, group, groups, np.ones(len(values)))
    present = np.flatnonzero(counts.any(axis=0))
    if not len(present):
        return Means((None,) * groups, None)
    sums, counts = sums[:, present], counts[:, present]
    drawn = _draw(sums, counts, draws, np.random.default_rng(seed))
    means = sums.sum(axis=0) / counts.sum(axis=0)
    enough = (counts > 0).sum(axis=0) >= FEWEST_USERS
    estimates: list[Estimate | None] = [None] * groups
    for place, which in enumerate(present):
        estimates[which] = Estimate(float(means[place]), _interval(drawn[:, place]) if enough[place] else None)
    macro = Estimate(float(means.mean()), _interval(drawn.mean(axis=1)) if enough.all() else None)
    return Means(tuple(estimates), macro)


def holm(p: Sequence[float]) -> list[float]:
    """p-values adjusted for being looked at together (Holm 1979): the chance of any false find stays below the level.

    The i-th smallest of m (from 0) is multiplied by m - i, and none may be below a smaller one's.
    """
    adjusted = [0.0] * len(p)
    largest = 0.0
    for done, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - done) * p[place]))
        adjusted[place] = largest
    return adjusted


def _per_user(user: Ints, group: Ints, groups: int, values: Floats) -> Floats:
    """Sums, [users, groups]."""
    users = int(user.max(initial=-1)) + 1
    flat = np.bincount(user * groups + group, weights=values, minlength=users * groups)
    return flat.astype(np.float64).reshape(users, groups)


def _draw(sums: Floats, counts: Floats, draws: int, random: np.random.Generator) -> Floats:
    """Means of the groups in every draw, [draws, groups]; NaN where a draw leaves a group without cases."""
    found = np.full((draws, sums.shape[1]), np.nan)
    block = max(1, _WEIGHTS // len(sums))
    for first in range(0, draws, block):
        means = found[first : first + block]
        weights = random.poisson(1.0, (len(means), len(sums))).astype(np.float64)
        count = weights @ counts
        np.divide(weights @ sums, count, out=means, where=count > 0)
    return found


def _interval(drawn: Floats) -> Interval:
    drawn = drawn[~np.isnan(drawn)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    # Each side counts the estimate itself as one more draw, so that p is never 0 (Davison and Hinkley 1997, 4.2).
    sides = [(1 + np.count_nonzero(side)) / (1 + len(drawn)) for side in (drawn <= 0, drawn >= 0)]
    return Interval(float(low), float(high), float(min(1.0, 2 * min(sides))), float(drawn.std(ddof=1)))
