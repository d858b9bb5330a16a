"""Items that are similar to an item, in its own domain and in others: exact search over the bundle's vectors and neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.bundle import Bundle
from formats.neighbours import NEIGHBOURS_KEPT
from service.ranking.catalog import Catalog
from service.ranking.query import DomainList

# What being a neighbour adds to the cosine, the strongest first: docs/decisions/0012-similar-items.md.
OF_PLACE = (1 - np.arange(NEIGHBOURS_KEPT) / NEIGHBOURS_KEPT).astype(np.float32)


@dataclass(frozen=True)
class Similar:
    """What a bundle knows of its items' likeness, made by `open_similar`.

    vectors: row n is of item index n + 1, [items, dim] (`formats.vectors`).
    neighbours: in the same order, [items, domain, NEIGHBOURS_KEPT] (`formats.neighbours`).
    """

    catalog: Catalog
    vectors: NDArray[np.float32]
    neighbours: NDArray[np.int32]

    def to(self, item_index: int, domains: Sequence[str], k: int, exclude: NDArray[np.int32]) -> list[DomainList]:
        """The k items of each domain that are most similar to an item; of equal ones the lower index first.

        Reads every vector of these domains once: under a millisecond for 50,000 items, a tenth of a second for a million, and more
        while the file is not in memory yet. Run it in a thread; it holds the interpreter's lock for a small part of that.

        Args:
            item_index: whose, from 1; never an answer itself.
            domains: known names, in the order of the answer.
            k: items per domain, at least 1.
            exclude: item indices that must not be answered, those that are unavailable among them, [any length].
        Returns:
            A list per domain asked for, shorter than k only where no more candidates are left. A score is the cosine of both
            items' vectors, and more for neighbours (`OF_PLACE`).
        """
        if not 1 <= item_index <= self.catalog.items:
            raise IndexError(f"item index {item_index}: the catalogue has 1 to {self.catalog.items}")
        never = np.append(exclude, np.int32(item_index))
        return [self._most_similar(item_index, name, k, never) for name in domains]

    def _most_similar(self, item_index: int, domain: str, k: int, never: NDArray[np.int32]) -> DomainList:
        first, after = self.catalog.bounds(domain)
        # Not @: BLAS splits that over threads that wait for each other on a busy machine, and equal rows may differ in the last bit.
        scores = np.einsum("ij,j->i", self.vectors[first - 1 : after - 1], self.vectors[item_index - 1])
        near = self.neighbours[item_index - 1, self.catalog.domain_number[domain]]
        scores[near[near > 0] - first] += OF_PLACE[near > 0]
        scores[never[(never >= first) & (never < after)] - first] = -np.inf
        best = _largest(scores, k)
        best = best[np.isfinite(scores[best])]
        return DomainList((best + first).tolist(), scores[best])


def open_similar(bundle: Bundle, catalog: Catalog) -> Similar | None:
    """What a bundle knows of similar items, memory-mapped; None if nothing.

    Args:
        bundle: whose vectors and neighbours.
        catalog: of the same bundle.
    Raises:
        WorkFailed: a file is damaged.
    """
    vectors, neighbours = bundle.vectors(), bundle.neighbours()
    return None if vectors is None or neighbours is None else Similar(catalog, vectors, neighbours)


def _largest(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Places of the k largest scores, falling; of equal ones the first."""
    places = np.arange(len(scores))
    if len(scores) > k:
        # A partition alone would keep any of those that are equal at the end of the list.
        least = np.partition(scores, -k)[-k]
        above = np.flatnonzero(scores > least)
        places = np.concatenate([above, np.flatnonzero(scores == least)[: k - len(above)]])
    return places[np.argsort(-scores[places], kind="stable")]
