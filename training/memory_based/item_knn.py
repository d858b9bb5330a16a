"""Item kNN: what users chose near in time to the events of a history.

The item-based neighbourhood of Sarwar et al. (2001) with the time weights of Ding and Li (2005, "Time weight collaborative
filtering"): two events of one user make their items neighbours, the more the nearer in time; the score of an item is the sum
over the newest events of the history, the newer the heavier.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack

from formats.errors import WrongUse
from training.cases import Cases
from training.dataset import Dataset
from training.memory_based.decay import HistoryDecay, TimeDecay
from training.memory_based.domains import columns_per_domain
from training.memory_based.groups import largest_of_each
from training.memory_based.newest_events import MICROSECONDS_PER_DAY, newest_events

Ints = NDArray[np.int64]

# Events of one user this far apart, counted over all domains, still make a pair: it bounds the work for a long history.
PAIR_PLACES: Final = 50
# Neighbours are counted for the items of about so many events at a time: it bounds the memory of fitting, and a million pairs
# sort faster than ten.
EVENTS_PER_BLOCK: Final = 10_000


@dataclass(frozen=True)
class ItemKnnConfig:
    """How neighbours are found and used.

    Attributes:
        neighbours: an item keeps so many of its strongest neighbours in every domain that it has any in.
        pair_decay: weight of a pair of events by the days between them.
        history_decay: weight of an event of the history.
        damping: the weights of a pair of items are divided by both items' event counts to this power; 0.5 is the cosine, 0 leaves
            popular items as strong as they are.
        history: so many of a history's newest known events are read.
        cross_domain: of all domains; otherwise of the domain that is scored alone, events of others are passed over.
    """

    neighbours: int
    pair_decay: TimeDecay
    history_decay: HistoryDecay
    damping: float
    history: int
    cross_domain: bool

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        for name in ("neighbours", "history"):
            if getattr(self, name) < 1:
                raise WrongUse(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.damping < math.inf:
            raise WrongUse(f"damping: must be at least 0, got {self.damping}")


@dataclass(frozen=True)
class ItemKnn:
    """The kept neighbours.

    Attributes:
        config: what they were fitted with.
        columns: item indices of every domain.
        weights: per domain, how strongly each item speaks for each item of the domain, sparse float32
            [items + 1, items of the domain]; row 0 (padding) is empty, and so are the rows of other domains unless
            cross_domain.
    """

    config: ItemKnnConfig
    columns: tuple[slice, ...]
    weights: tuple[Any, ...]

    def scorer(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """Sums over the histories, [cases, items of the domain]; a `training.ranking.Scorer`.

        0 where no event of the history has the item among its neighbours.
        """
        readable = slice(1, self.columns[-1].stop) if self.config.cross_domain else self.columns[domain]
        events = newest_events(cases, readable, self.config.history)
        weights = self.config.history_decay.weights(events).astype(np.float32)
        shape = (len(cases), self.columns[-1].stop)
        histories = csr_array((weights, events.item_index, events.offsets), shape=shape)
        scores: NDArray[np.float32] = (histories @ self.weights[domain]).toarray()
        return scores

    def table(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """All neighbours as two rectangles: gather the rows of a history's items, scatter-add by item.

        Returns:
            item indices and weights, [items + 1, most neighbours of an item over all domains] each, in order of item index;
            rows are filled up with item 0 and weight 0.
        """
        padding = csr_array((self.columns[-1].stop, 1), dtype=np.float32)
        joined = hstack([padding, *self.weights], format="csr")
        lengths = np.diff(joined.indptr)
        filled = np.arange(lengths.max()) < lengths[:, None]
        items = np.zeros(filled.shape, dtype=np.int32)
        weights = np.zeros(filled.shape, dtype=np.float32)
        items[filled], weights[filled] = joined.indices, joined.data
        return items, weights


def fit_item_knn(dataset: Dataset, config: ItemKnnConfig) -> ItemKnn:
    """Find every item's neighbours in the training events."""
    columns = columns_per_domain(dataset)
    blocks = [_strongest(block, dataset.item_domain(), config.neighbours) for block in _weighted_pairs(dataset, config)]
    weights = vstack(blocks, format="csr")
    return ItemKnn(config, columns, tuple(weights[:, own] for own in columns))


def _weighted_pairs(dataset: Dataset, config: ItemKnnConfig) -> Iterator[Any]:
    """Damped weights of all pairs of items, for some items at a time in order of index, sparse [some items, items + 1]."""
    train = dataset.train
    item = np.asarray(train.item_index)
    user = np.repeat(np.arange(train.users), np.diff(train.user_offsets))
    domain = dataset.item_domain()[item]
    by_item = np.argsort(item, kind="stable")
    counts = np.bincount(item, minlength=dataset.items + 1)
    damped = np.maximum(counts, 1).astype(np.float64) ** config.damping
    offsets = np.concatenate([[0], np.cumsum(counts)])
    for first, stop in _blocks(offsets):
        event, other = _partners(by_item[offsets[first] : offsets[stop]], user)
        paired = item[event] != item[other]
        if not config.cross_domain:
            paired &= domain[event] == domain[other]
        event, other = event[paired], other[paired]
        days = np.abs(train.timestamp[event] - train.timestamp[other]) / MICROSECONDS_PER_DAY
        pairs = csr_array(
            (config.pair_decay.after(days), (item[event] - first, item[other])), shape=(stop - first, len(counts))
        )
        pairs.data /= np.repeat(damped[first:stop], np.diff(pairs.indptr)) * damped[pairs.indices]
        yield pairs


def _blocks(offsets: Ints) -> Iterator[tuple[int, int]]:
    """Ranges of items with about EVENTS_PER_BLOCK events, at least one item each; `offsets` counts events before each."""
    first, items = 0, len(offsets) - 1
    while first < items:
        stop = int(np.searchsorted(offsets, offsets[first] + EVENTS_PER_BLOCK, side="right")) - 1
        stop = min(max(stop, first + 1), items)
        yield first, stop
        first = stop


def _partners(event: Ints, user: Ints) -> tuple[Ints, Ints]:
    """The events of the same user that are near to these, [pairs] each."""
    distances = np.concatenate([np.arange(-PAIR_PLACES, 0), np.arange(1, PAIR_PLACES + 1)])
    others = event[:, None] + distances
    inside = (others >= 0) & (others < len(user))
    same = inside & (user[np.where(inside, others, 0)] == user[event][:, None])
    row, column = np.nonzero(same)
    return event[row], others[row, column]


def _strongest(pairs: Any, item_domain: Ints, neighbours: int) -> Any:
    """Per row and domain the largest weights; of equal ones those of the lower item index."""
    # Rows are sorted by item, and so by domain: adding up their duplicates did that.
    row = np.repeat(np.arange(pairs.shape[0]), np.diff(pairs.indptr))
    group = row * (item_domain.max() + 1) + item_domain[pairs.indices]
    keep = largest_of_each(pairs.data, group, neighbours)
    kept = (pairs.data[keep].astype(np.float32), (row[keep], pairs.indices[keep]))
    return csr_array(kept, shape=pairs.shape)
