"""Counts that lose half their weight in every half-life: an event of `age` whole UTC days counts 0.5^(age / half-life).

As in evaluation (`training.memory_based.recent_popularity`), but for today: there the counts are renewed at midnight,
here an event of today counts 1 at once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class DecayedCounts:
    """The counts of one domain's items, as of one day.

    item_ids: of each row. Rows are only ever added.
    """

    def __init__(self, half_lives_days: Sequence[float], today: int) -> None:
        self.item_ids: list[str] = []
        self.today = today
        self._half_lives = np.asarray(half_lives_days, dtype=np.float64)[:, None]
        self._row: dict[str, int] = {}
        self._counts = np.zeros((len(half_lives_days), 1024))

    @property
    def counts(self) -> NDArray[np.float64]:
        """Decayed counts, [half-lives, items]; changes with the next event."""
        return self._counts[:, : len(self.item_ids)]

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._row

    def rows(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """The row of each item, [items]; a new one where there was none."""
        rows = np.fromiter((self._row.setdefault(item_id, len(self._row)) for item_id in item_ids), dtype=np.int64)
        if len(self._row) > len(self.item_ids):
            self.item_ids.extend(list(self._row)[len(self.item_ids) :])
            if len(self._row) > self._counts.shape[1]:
                more = max(len(self._row), 2 * self._counts.shape[1]) - self._counts.shape[1]
                self._counts = np.pad(self._counts, ((0, 0), (0, more)))
        return rows

    def add(self, rows: NDArray[np.int64], days: NDArray[np.int64], counts: NDArray[np.float64]) -> None:
        """Events: of which row, on which day (days since 1970; a later day than today counts as today), how many."""
        for row_counts, weights in zip(self._counts, self._weights(days), strict=True):
            np.add.at(row_counts, rows, weights * counts)

    def add_decayed(self, rows: NDArray[np.int64], day: int, counts: NDArray[np.float64]) -> None:
        """Counts that were decayed until `day`, [half-lives, rows]."""
        for row_counts, decayed in zip(self._counts, counts * self._weights(np.array([day])), strict=True):
            np.add.at(row_counts, rows, decayed)

    def move_to(self, today: int) -> None:
        """Let days pass."""
        self._counts *= np.exp2(-max(0, today - self.today) / self._half_lives)
        self.today = max(today, self.today)

    def _weights(self, days: NDArray[np.int64]) -> NDArray[np.float64]:
        """[half-lives, days]."""
        weights: NDArray[np.float64] = np.exp2(-np.maximum(self.today - days, 0) / self._half_lives)
        return weights


def at_steady_rate(half_life_days: float) -> float:
    """The decayed count of an item that is chosen once a day, always."""
    return float(1 / (1 - np.exp2(-1 / half_life_days)))
