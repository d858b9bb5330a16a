"""How the events of a history lose weight, by age or by place."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.errors import WrongUse
from training.memory_based.newest_events import NewestEvents


@dataclass(frozen=True)
class TimeDecay:
    """floor + (1 - floor) · 0.5^(days / half_life_days).

    Attributes:
        half_life_days: what is above the floor halves in so many days.
        floor: what the oldest events keep, 0 to 1.
    """

    half_life_days: float
    floor: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        if not 0 < self.half_life_days < math.inf:
            raise WrongUse(f"half_life_days: must be above 0, got {self.half_life_days}")
        if not 0 <= self.floor <= 1:
            raise WrongUse(f"floor: must be from 0 to 1, got {self.floor}")

    def after(self, days: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weight after so many days, of the same shape."""
        return self.floor + (1 - self.floor) * np.exp2(-days / self.half_life_days)

    def weights(self, events: NewestEvents) -> NDArray[np.float64]:
        """By age at the time of the case, [events]."""
        return self.after(events.age_days)


@dataclass(frozen=True)
class PlaceDecay:
    """factor^place, the newest event at place 0.

    Attributes:
        factor: what an event keeps of the weight of the next newer one, above 0 to 1.
    """

    factor: float

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        if not 0 < self.factor <= 1:
            raise WrongUse(f"factor: must be above 0 and at most 1, got {self.factor}")

    def weights(self, events: NewestEvents) -> NDArray[np.float64]:
        """By place in the history, [events]."""
        weights: NDArray[np.float64] = np.float64(self.factor) ** events.place
        return weights


HistoryDecay = TimeDecay | PlaceDecay
