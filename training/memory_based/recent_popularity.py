"""Recent popularity: how often everybody chose an item lately, renewed at 00:00 UTC every day.

It reads nothing of the user and needs no training, so it is live: at a case it knows the events of all parts before the UTC
day of the case, as the service does, which renews its counts once a day.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from formats.errors import WrongUse
from training.cases import Cases
from training.dataset import Dataset
from training.manifest import PARTS
from training.memory_based.domains import columns_per_domain
from training.memory_based.newest_events import MICROSECONDS_PER_DAY

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RecentPopularityConfig:
    """How events lose their weight: exactly one of the two.

    Attributes:
        half_life_days: an event counts half as much as one of so many days later.
        window_days: the last so many days count, each event of them the same.
    """

    half_life_days: float | None = None
    window_days: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        if (self.half_life_days is None) == (self.window_days is None):
            raise WrongUse("half_life_days, window_days: exactly one of them must be given")
        if self.half_life_days is not None and not 0 < self.half_life_days < math.inf:
            raise WrongUse(f"half_life_days: must be above 0, got {self.half_life_days}")
        if self.window_days is not None and self.window_days < 1:
            raise WrongUse(f"window_days: must be at least 1, got {self.window_days}")

    def weights(self, age_days: Ints) -> NDArray[np.float64]:
        """What an event counts by its age in whole UTC days: 1 is yesterday; today and later count nothing."""
        past = age_days >= 1
        if self.window_days is not None:
            return (past & (age_days <= self.window_days)).astype(np.float64)
        return np.where(past, np.exp2(-np.maximum(age_days, 0) / self.half_life_days), 0.0)


@dataclass(frozen=True)
class RecentPopularity:
    """The events of every day, counted.

    first_day: UTC day of the first row, in days since 1970.
    daily_counts: per domain, events of each day and item, sparse [days, items of the domain].
    """

    config: RecentPopularityConfig
    first_day: int
    daily_counts: tuple[Any, ...]

    def scorer(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """Weighted counts on the day of each case, [cases, items of the domain]; a `training.ranking.Scorer`."""
        days, row = np.unique(cases.timestamp[cases.position] // MICROSECONDS_PER_DAY, return_inverse=True)
        return self.on_days(days, domain)[row]

    def on_days(self, days: Ints, domain: int) -> NDArray[np.float32]:
        """Weighted counts of all events before each of these days.

        Args:
            days: in days since 1970, UTC, [days].
            domain: 0-based.
        Returns:
            [days, items of the domain].
        """
        counts = self.daily_counts[domain]
        counted_days = self.first_day + np.arange(counts.shape[0])
        scores: NDArray[np.float64] = self.config.weights(days[:, None] - counted_days) @ counts
        return scores.astype(np.float32)


def fit_recent_popularity(dataset: Dataset, config: RecentPopularityConfig) -> RecentPopularity:
    """Count the known events of all parts by day and item."""
    tables = [dataset.part(name) for name in PARTS]
    item = np.concatenate([table.item_index for table in tables])
    day = np.concatenate([table.timestamp for table in tables])[item > 0] // MICROSECONDS_PER_DAY
    item = item[item > 0]
    first_day = int(day.min())
    shape = (int(day.max()) - first_day + 1, dataset.items + 1)
    counts = csr_array((np.ones(len(item)), (day - first_day, item)), shape=shape)
    return RecentPopularity(config, first_day, tuple(counts[:, columns] for columns in columns_per_domain(dataset)))
