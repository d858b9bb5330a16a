"""A stored history as people read it: item ids and times instead of hashes."""

from dataclasses import dataclass

import numpy as np

from service.history.packed import History
from service.ranking.catalog import Catalog


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
