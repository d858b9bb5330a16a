"""Live counts as one model sees them: an input of its graph, and a ranked list per domain that also holds newer items."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.event_ties import item_hashes
from service.ranking.catalog import Catalog
from service.ranking.decay import DecayedCounts

# Of the new items of a domain so many may enter a model's list; k is at most 100, and some are excluded.
MAX_ENTERING = 300


@dataclass(frozen=True)
class RankedDomain:
    """Every item of one domain, most popular first; equal ones in the order of the bundle, then new ones by arrival.

    item_index: of the catalogue; -1 - n for new item n, which is in no catalogue, [items].
    count: decayed, [items].
    new_ids: item id of each new item, [new items].
    new_hashes, new_numbers: hashes of the new items, rising, and which new item each is of, [new items].
    entering: the new items that the mixture's counts give the largest shares, largest first, as in `item_index`.
    entering_shares: those shares of the domain, [entering]; comparable with the scores of a mixture.
    """

    item_index: NDArray[np.int32]
    count: NDArray[np.float32]
    new_ids: list[str]
    new_hashes: NDArray[np.uint64]
    new_numbers: NDArray[np.int32]
    entering: NDArray[np.int32]
    entering_shares: NDArray[np.float32]
    _number_of: Mapping[str, int]  # of every new item, also of later views'

    def best(self, k: int, exclude: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The first k items that are not excluded, and their counts; `exclude` in the terms of `item_index`."""
        # Enough that k are left whatever is excluded; the whole domain may be long.
        head = self.item_index[: k + len(exclude)]
        places = np.flatnonzero(~np.isin(head, exclude))[:k]
        return head[places], self.count[places]

    def best_among(
        self, include: NDArray[np.int32], k: int, exclude: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The same of these items alone."""
        among = np.isin(self.item_index, include) & ~np.isin(self.item_index, exclude)
        places = np.flatnonzero(among)[:k]
        return self.item_index[places], self.count[places]

    def new_items(self, item_ids: Iterable[str]) -> NDArray[np.int32]:
        """Which of these ids are new items, as `item_index` has them."""
        numbers = (self._number_of.get(item_id, -1) for item_id in item_ids)
        return np.array([-1 - number for number in numbers if 0 <= number < len(self.new_ids)], dtype=np.int32)


@dataclass(frozen=True)
class PopularityView:
    """Never changed; a newer one takes its place.

    recent: the graph's input, [half-lives, items + 2].
    domains: in the catalogue's order.
    """

    recent: NDArray[np.float32]
    domains: tuple[RankedDomain, ...]


class Viewer:
    """Makes the views of one model, remembering which row of the counts is which item."""

    def __init__(
        self, catalog: Catalog, recent_rows: Sequence[int], ranked_row: int, weights: Mapping[str, Sequence[float]]
    ) -> None:
        """Prepare for one model.

        Args:
            catalog: the model's.
            recent_rows: which half-lives of the counts its graph reads.
            ranked_row: which one ranks.
            weights: per domain, what the model's mixture gives each row of `recent_rows`; no domain if it has no mixture.
        """
        self._catalog, self._recent_rows, self._ranked_row = catalog, list(recent_rows), ranked_row
        self._weights = {domain: np.asarray(given, dtype=np.float64) for domain, given in weights.items()}
        self._places: dict[str, _Places] = {}

    def view(self, counts: Mapping[str, DecayedCounts]) -> PopularityView:
        """The view of these counts by domain; a domain without counts is ranked as in the bundle."""
        recent = np.zeros((len(self._recent_rows), self._catalog.items + 2), dtype=np.float32)
        ranked = []
        for domain in self._catalog.domains:
            first, after = self._catalog.bounds(domain)
            own = counts.get(domain)
            places = self._of(domain, own)
            by_item = np.zeros(after - first + len(places.new_ids))
            if own is not None:
                recent[:, places.item_index[places.is_known]] = own.counts[self._recent_rows][:, places.is_known]
                by_item[places.in_ranking] = own.counts[self._ranked_row]
            shares = self._shares_of_new(domain, own, places)
            ranked.append(_rank(by_item, shares, first, after, places))
        return PopularityView(recent, tuple(ranked))

    def _shares_of_new(self, domain: str, counts: DecayedCounts | None, places: "_Places") -> NDArray[np.float64]:
        """What the mixture would give the new items if its graph knew them, [new items].

        As `model.mixed_ranker.Mixture` counts: relative to the counts of the items that it knows.
        """
        weights = self._weights.get(domain)
        if counts is None or weights is None or not places.new_ids:
            return np.zeros(len(places.new_ids))
        recent = counts.counts[self._recent_rows]
        known = recent[:, places.is_known].sum(axis=1)
        per_event = np.divide(weights, known, out=np.zeros_like(weights), where=known > 0)
        shares: NDArray[np.float64] = per_event @ recent[:, ~places.is_known]
        return shares

    def _of(self, domain: str, counts: DecayedCounts | None) -> "_Places":
        places = self._places.get(domain)
        if places is None or counts is None or places.counts is not counts:
            places = self._places[domain] = _Places(counts)
        if counts is not None and len(places.item_index) < len(counts.item_ids):
            places.extend(self._catalog, domain, counts.item_ids[len(places.item_index) :])
        return places


class _Places:
    """Where the rows of one domain's counts belong.

    item_index: of the catalogue, 0 for a new item, [rows]. in_ranking: place among the domain's items, then the new, [rows].
    """

    def __init__(self, counts: DecayedCounts | None) -> None:
        self.counts = counts
        self.item_index = np.zeros(0, dtype=np.int32)
        self.in_ranking = np.zeros(0, dtype=np.int64)
        self.new_ids: list[str] = []
        self.number_of: dict[str, int] = {}
        self.new_hashes = np.zeros(0, dtype=np.uint64)
        self.new_numbers = np.zeros(0, dtype=np.int32)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        return self.item_index > 0

    def extend(self, catalog: Catalog, domain: str, item_ids: Sequence[str]) -> None:
        first, after = catalog.bounds(domain)
        index = np.array([catalog.item_index(domain, item_id) for item_id in item_ids], dtype=np.int32)
        is_new = index == 0
        new_ids = [item_id for item_id, new in zip(item_ids, is_new.tolist(), strict=True) if new]
        place = index.astype(np.int64) - first
        place[is_new] = after - first + len(self.new_ids) + np.arange(len(new_ids))
        self.item_index = np.concatenate([self.item_index, index])
        self.in_ranking = np.concatenate([self.in_ranking, place])
        self.number_of.update((item_id, number) for number, item_id in enumerate(new_ids, start=len(self.new_ids)))
        # A new list: views hold the old one.
        self.new_ids = [*self.new_ids, *new_ids]
        hashes = np.concatenate([self.new_hashes, item_hashes((domain, item_id) for item_id in new_ids)])
        numbers = np.concatenate([self.new_numbers, np.arange(len(self.new_numbers), len(hashes), dtype=np.int32)])
        order = np.argsort(hashes, kind="stable")
        self.new_hashes, self.new_numbers = hashes[order], numbers[order]


def _rank(
    by_item: NDArray[np.float64], shares: NDArray[np.float64], first: int, after: int, places: _Places
) -> RankedDomain:
    order = np.argsort(-by_item, kind="stable")
    size = after - first
    item_index = np.where(order < size, first + order, size - 1 - order).astype(np.int32)
    entering = np.argsort(-shares, kind="stable")[:MAX_ENTERING]
    entering = entering[shares[entering] > 0]
    return RankedDomain(
        item_index=item_index,
        count=by_item[order].astype(np.float32),
        new_ids=places.new_ids,
        new_hashes=places.new_hashes,
        new_numbers=places.new_numbers,
        entering=(-1 - entering).astype(np.int32),
        entering_shares=shares[entering].astype(np.float32),
        _number_of=places.number_of,
    )
