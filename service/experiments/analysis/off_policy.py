"""Off-policy evaluation: what another ranker would have earned, from slots that explored with a known probability.

A ranker that always shows its best items leaves nothing to learn about others; without exploration there is no answer.
Intervals are over users, whose requests resemble each other.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.experiments.analysis.ratio import Interval, Ratio, measure
from service.experiments.analysis.sums import Floats, Sums

Integers = NDArray[np.int64]

# Below, a few lucky clicks with large weights are the estimate, and its interval does not know.
FEWEST_EFFECTIVE: Final = 1000


@dataclass(frozen=True)
class Value:
    """Mean reward of a slot under the other policy.

    requests: slots that the estimate is made of. effective: as many, all with the same weight, would say as much.
    value, interval: None if refused: too few.
    """

    requests: int
    effective: float
    value: float | None
    interval: Interval | None
    status: Literal["measured", "too_few_effective_requests"]


def importance(target: Floats, propensity: Floats) -> Floats:
    """Weight of each slot: probability of its item under the other policy by that under which it was shown, [slots]."""
    if np.any(propensity <= 0) or np.any(propensity > 1):
        raise ValueError("a propensity must be above 0 and at most 1")
    return target / propensity


def effective_sample(weights: Floats) -> float:
    """Kish's effective sample size."""
    squares = float((weights**2).sum())
    return float(weights.sum()) ** 2 / squares if squares else 0.0


def snips(reward: Floats, weights: Floats, user: Integers) -> Value:
    """Self-normalised inverse propensity scoring.

    Args:
        reward: clicked or not, [slots].
        weights: see `importance`, [slots].
        user: number of the user of each slot, from 0, [slots].
    """
    return _value({"reward": weights * reward, "weight": weights}, weights, user)


def doubly_robust(reward: Floats, weights: Floats, user: Integers, logged: Floats, expected: Floats) -> Value:
    """A model of the reward, corrected by what it got wrong where the policies agree.

    Args:
        reward, weights, user: as for `snips`.
        logged: what the model expects of the item that was shown, [slots].
        expected: what it expects of the other policy in the same slot, [slots].
    """
    return _value({"reward": expected + weights * (reward - logged), "weight": np.ones(len(weights))}, weights, user)


def _value(columns: dict[str, Floats], weights: Floats, user: Integers) -> Value:
    effective = effective_sample(weights)
    if effective < FEWEST_EFFECTIVE:
        return Value(len(weights), effective, None, None, "too_few_effective_requests")
    _, number = np.unique(user, return_inverse=True)
    by_user = Sums.of({name: np.bincount(number, column) for name, column in columns.items()})
    found = measure(by_user, Ratio("reward", "reward", "weight"))
    return Value(len(weights), effective, found.value, found.interval, "measured")
