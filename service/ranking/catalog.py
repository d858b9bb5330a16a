"""The catalogue of a bundle: item ids outside, item indices inside, and each item's piece of the JSON answer."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import orjson
import polars as pl
from numpy.typing import NDArray

from formats.bundle import ITEMS, Bundle
from formats.errors import WorkFailed
from formats.event_ties import item_hashes

NO_ITEMS = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class Catalog:
    """Looks items up. An item index runs from 1; 0 means that the model does not know the item.

    Made once per bundle by `read_catalog`; the lists that are indexed by item index have an unused place 0.
    """

    model_version: str
    domains: tuple[str, ...]
    max_history: int
    items: int
    starts: tuple[int, ...]  # item index of the first item of each domain, and one past the last of all
    popularity: NDArray[np.float32]  # [1 + items], falling within a domain
    item_ids: list[str]  # [1 + items]
    head: list[bytes]  # [1 + items], JSON of an item up to its score
    tail: list[bytes]  # [1 + items], JSON of an item after its rank
    titles: dict[int, str]  # by item index, where there is one
    domain_number: dict[str, int]
    _index_of: tuple[dict[str, int], ...]  # per domain: item_id -> item index
    _sorted_hashes: NDArray[np.uint64]  # [items]
    _hash_order: NDArray[np.int32]  # [items], item index of each sorted hash
    _categories: dict[str, NDArray[np.int32]] | None  # category -> item indices, rising

    @property
    def has_categories(self) -> bool:
        """Whether the bundle says which category an item is of."""
        return self._categories is not None

    def item_index(self, domain: str, item_id: str) -> int:
        """Index of an item of a known domain, 0 if the model does not know it."""
        return self._index_of[self.domain_number[domain]].get(item_id, 0)

    def in_any_domain(self, item_id: str) -> list[int]:
        """Indices of the items with this id: an id is unique within its domain only."""
        return [index[item_id] for index in self._index_of if item_id in index]

    def bounds(self, domain: str) -> tuple[int, int]:
        """The first item index of a known domain and the one after its last."""
        number = self.domain_number[domain]
        return self.starts[number], self.starts[number + 1]

    def by_hash(self, hashes: NDArray[np.uint64]) -> NDArray[np.int32]:
        """Item index of each hash of `formats.event_ties.item_hashes`, 0 where unknown, [events]."""
        place = np.searchsorted(self._sorted_hashes, hashes)
        place[place == self.items] = 0
        return np.where(self._sorted_hashes[place] == hashes, self._hash_order[place], np.int32(0))

    @property
    def hashes(self) -> NDArray[np.uint64]:
        """The hashes of all items, rising, [items]."""
        return self._sorted_hashes

    def at_places(self, places: NDArray[np.int64]) -> NDArray[np.int32]:
        """The item index of each of these places in `hashes`, [places]."""
        return self._hash_order[places]

    def in_categories(self, categories: Iterable[str]) -> NDArray[np.int32]:
        """Indices of the items of any of these categories, rising. An unknown category has none."""
        known = self._categories or {}
        return np.unique(np.concatenate([NO_ITEMS, *(known.get(name, NO_ITEMS) for name in categories)]))


def read_catalog(bundle: Bundle) -> Catalog:
    """The catalogue of a bundle.

    Raises:
        WorkFailed: two items share a hash, or one an id within its domain; the message names both.
    """
    manifest, frame = bundle.manifest, bundle.items()
    domains, ids = frame["domain"].to_list(), frame["item_id"].cast(pl.String).to_list()
    starts = np.cumsum([1, *manifest.items_per_domain.values()])
    index_of = tuple(
        {item_id: index for index, item_id in enumerate(ids[first - 1 : after - 1], start=first)}
        for first, after in zip(starts.tolist(), starts.tolist()[1:], strict=False)
    )
    order, hashes = _sort_hashes(bundle, domains, ids)
    titles = _titles(frame)
    return Catalog(
        model_version=manifest.model_version,
        domains=manifest.domains,
        max_history=manifest.max_history,
        items=manifest.items,
        starts=tuple(starts.tolist()),
        popularity=np.concatenate([[0], frame["popularity"].cast(pl.Float32).to_numpy()]).astype(np.float32),
        item_ids=["", *ids],
        head=[b"", *(b'{"item_id":%b,"score":' % orjson.dumps(item_id) for item_id in ids)],
        tail=[b"", *_tails(titles, len(frame))],
        titles=titles,
        domain_number={name: number for number, name in enumerate(manifest.domains)},
        _index_of=index_of,
        _sorted_hashes=hashes,
        _hash_order=order,
        _categories=_group_by_category(frame),
    )


def _sort_hashes(
    bundle: Bundle, domains: Sequence[str], ids: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.uint64]]:
    hashes = item_hashes(zip(domains, ids, strict=True))
    order = np.argsort(hashes, kind="stable")
    same = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
    if len(same):
        one, other = (f"'{ids[row]}' of '{domains[row]}'" for row in order[same[0] : same[0] + 2])
        raise WorkFailed(f"{bundle.path / ITEMS}: item_id: items {one} and {other} have one and the same 64-bit hash")
    return (order + 1).astype(np.int32), hashes[order]


def _titles(frame: pl.DataFrame) -> dict[int, str]:
    if "title" not in frame.columns:
        return {}
    titles = frame["title"].cast(pl.String).to_list()
    return {index: title for index, title in enumerate(titles, start=1) if title is not None}


def _tails(titles: dict[int, str], items: int) -> list[bytes]:
    return [b',"title":%b}' % orjson.dumps(titles[index]) if index in titles else b"}" for index in range(1, items + 1)]


def _group_by_category(frame: pl.DataFrame) -> dict[str, NDArray[np.int32]] | None:
    if "category" not in frame.columns:
        return None
    grouped = (
        frame.select(pl.col("category").cast(pl.String), pl.col("item_index").cast(pl.Int32))
        .drop_nulls()
        .sort("item_index")
        .group_by("category")
        .agg("item_index")
    )
    return {name: np.array(indices, dtype=np.int32) for name, indices in grouped.iter_rows()}
