"""What a user has had, in terms of a catalogue: for `exclude_seen`, and for people to read."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.history.packed import History
from service.ranking.catalog import Catalog
from service.ranking.popularity_view import RankedDomain


@dataclass(frozen=True)
class ShownEvent:
    """One event. domain, item_id: None where the served model does not know the item: only its hash is stored."""

    domain: str | None
    item_id: str | None
    timestamp: int


@dataclass(frozen=True)
class ShownHistory:
    """What is held of a user's past. events: oldest first. older_items: how many items are only known as seen before those."""

    events: list[ShownEvent]
    older_items: int


def known_events(history: History, catalog: Catalog) -> NDArray[np.int32]:
    """Indices of the newest events' items that the catalogue knows, oldest first."""
    newest = catalog.by_hash(history.events["item_hash"])
    return newest[newest > 0]


def seen_before(history: History, catalog: Catalog) -> NDArray[np.int32]:
    """Indices of the items that the user had before the newest events, in any order.

    A few others may be among them, but none is missing (`service.history.seen`).
    """
    return catalog.at_places(history.seen.among(catalog.hashes))


def new_seen(history: History, ranked: RankedDomain) -> NDArray[np.int32]:
    """The same of a domain's new items, which are in no catalogue, as `RankedDomain.item_index` has them."""
    newest = ranked.new_numbers[np.isin(ranked.new_hashes, history.events["item_hash"])]
    return -1 - np.concatenate([newest, ranked.new_numbers[history.seen.among(ranked.new_hashes)]])


def show(history: History, catalog: Catalog) -> ShownHistory:
    """Name what the catalogue knows."""
    indices = catalog.by_hash(history.events["item_hash"])
    numbers = np.searchsorted(catalog.starts, indices, side="right") - 1
    events = [
        ShownEvent(catalog.domains[number], catalog.item_ids[index], timestamp)
        if index
        else ShownEvent(None, None, timestamp)
        for index, number, timestamp in zip(
            indices.tolist(), numbers.tolist(), history.events["timestamp"].tolist(), strict=True
        )
    ]
    return ShownHistory(events, len(history.seen.prefixes))
