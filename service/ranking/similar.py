"""Items that are like an item, in its own domain and in others: the nearest vectors of the bundle, by exact search."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.bundle import Bundle
from service.ranking.catalog import Catalog
from service.ranking.query import DomainList

NEVER = np.float32(-np.inf)


@dataclass(frozen=True)
class Similar:
    """The vectors of a catalogue's items, made by `open_similar`.

    vectors: row n is of item index n + 1, [items, dim] (`formats.vectors`).
    without_vector: item indices whose vector is zero, rising: they are like nothing and nothing is like them.
    """

    catalog: Catalog
    vectors: NDArray[np.float32]
    without_vector: NDArray[np.int32]

    def to(self, item_index: int, domains: Sequence[str], k: int, exclude: NDArray[np.int32]) -> list[DomainList]:
        """The k items of each domain whose vectors have the largest cosine with an item's; of equal ones the lower index first.

        Reads every vector of these domains once: run it in a thread, it takes tens of milliseconds for a million items, and more
        while the file is not in memory yet.

        Args:
            item_index: whose, from 1; never an answer itself.
            domains: known names, in the order of the answer.
            k: items per domain, at least 1.
            exclude: item indices that must not be answered, those that are unavailable among them, [any length].
        Returns:
            A list per domain asked for, shorter than k only where no more candidates are left; empty if the item has no vector.
            Scores are cosines.
        """
        if not 1 <= item_index <= self.catalog.items:
            raise IndexError(f"item index {item_index}: the catalogue has 1 to {self.catalog.items}")
        if item_index in self.without_vector:
            return [DomainList([], np.zeros(0, dtype=np.float32)) for _ in domains]
        never = np.concatenate([exclude, self.without_vector, np.array([item_index], dtype=np.int32)])
        return [self._nearest(self.vectors[item_index - 1], *self.catalog.bounds(name), k, never) for name in domains]

    def _nearest(
        self, vector: NDArray[np.float32], first: int, after: int, k: int, never: NDArray[np.int32]
    ) -> DomainList:
        scores = self.vectors[first - 1 : after - 1] @ vector
        scores[never[(never >= first) & (never < after)] - first] = NEVER
        best = _largest(scores, k)
        best = best[scores[best] > NEVER]
        return DomainList((best + first).tolist(), scores[best])


def open_similar(bundle: Bundle, catalog: Catalog) -> Similar | None:
    """The vectors of a bundle, memory-mapped; None if it has none.

    Args:
        bundle: whose vectors.
        catalog: of the same bundle.
    Raises:
        WorkFailed: the file is damaged.
    """
    vectors = bundle.vectors()
    if vectors is None:
        return None
    return Similar(catalog, vectors, (np.flatnonzero(~vectors.any(axis=1)) + 1).astype(np.int32))


def _largest(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k largest scores, falling; of equal ones the first."""
    places = np.arange(len(scores))
    if len(scores) > k:
        # A partition alone would keep any of those that are equal at the end of the list.
        least = np.partition(scores, -k)[-k]
        above = np.flatnonzero(scores > least)
        places = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
    return places[np.argsort(-scores[places], kind="stable")]
