"""The one order of events: by user, then time, then a hash.

Events of one user at one time have no true order, and the order of the file or of the ids must not be taken for one: a
model learns "the next higher id" from it. The hash is fixed, so the same events always come out in the same order.
"""

from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.event_ties import item_hashes, tie_hashes, user_hashes
from formats.event_times import MICROSECONDS
from training.encoding import CodedEvents

_HASH_BITS: Final = 64
# Of a sort key; no more than its type has.
_KEY_BITS: Final = 64
# Events taken at a time, so that the intermediate arrays stay in the processor's cache.
_BLOCK: Final = 1 << 16
_REPEATS_BLOCK: Final = 1 << 20


def in_order(events: CodedEvents) -> CodedEvents:
    """The events sorted by user, time and `tie_hashes`. Only exact repeats of an event can stand in either order."""
    ties = _Ties(events)
    key = _sort_keys(events, ties)
    rows = np.argsort(key)
    return events.take(_settle_equal_keys(events, ties, rows, key[rows]))


class _Ties:
    """`tie_hashes` of chosen events, each id hashed once."""

    def __init__(self, events: CodedEvents) -> None:
        domains = (events.domains[domain] for domain in events.item_domain)
        self._events = events
        self._user = user_hashes(events.user_ids)
        self._item = item_hashes(zip(domains, events.item_ids, strict=True))

    def of(self, rows: slice | NDArray[np.int64]) -> NDArray[np.uint64]:
        events = self._events
        return tie_hashes(self._user[events.user[rows]], self._item[events.item[rows]], events.timestamp[rows])


def first_of_repeats(events: CodedEvents, *, same_time_only: bool) -> NDArray[np.bool_]:
    """Which events are the first of their kind, [events]; the events must be in order.

    Args:
        events: in order.
        same_time_only: a repeat has the same user, item and time; otherwise the same user and item.
    """
    if same_time_only:
        first = np.ones(len(events), dtype=bool)
        first[1:] = _differs(events.user) | _differs(events.timestamp) | _differs(events.item)
        return first
    # Some users at a time: their table of pairs then fits the processor's cache, which halves the time.
    first_rows = np.searchsorted(events.user, events.user[::_REPEATS_BLOCK])
    cuts = np.unique([*first_rows, len(events)])
    blocks = [_first_pairs(events.user[a:b], events.item[a:b]) for a, b in pairwise(cuts)]
    return np.concatenate(blocks) if blocks else np.empty(0, dtype=bool)


def _first_pairs(user: NDArray[np.int32], item: NDArray[np.int32]) -> NDArray[np.bool_]:
    pair = (user.astype(np.uint64) << np.uint64(32)) | item.astype(np.uint64)
    return pl.Series(pair).is_first_distinct().to_numpy()


def tied_share(events: CodedEvents) -> float:
    """Share of the events, in order, that have another event of the same user at the same time."""
    apart = np.ones(len(events) + 1, dtype=bool)
    apart[1:-1] = _differs(events.user) | _differs(events.timestamp)
    return float(np.mean(~(apart[1:] & apart[:-1]))) if len(events) else 0.0


def _sort_keys(events: CodedEvents, ties: _Ties) -> NDArray[np.uint64]:
    """One number per event that sorts by user, then time, then as many leading bits of the tie hash as fit, [events]."""
    user_bits = int(events.user.max()).bit_length()
    time = _Times(events.timestamp, at_most_bits=_KEY_BITS - user_bits)
    free_bits = _KEY_BITS - user_bits - time.bits
    keys = np.empty(len(events), dtype=np.uint64)
    for first in range(0, len(events), _BLOCK):
        block = slice(first, first + _BLOCK)
        key = (events.user[block].astype(np.uint64) << np.uint64(time.bits)) | time.of(block)
        # A shift by all 64 bits is undefined; it would only be asked for with a single user and a single time.
        if 0 < free_bits < _HASH_BITS:
            key = (key << np.uint64(free_bits)) | (ties.of(block) >> np.uint64(_HASH_BITS - free_bits))
        keys[block] = key
    return keys


class _Times:
    """Times as numbers from 0 in the same order: seconds if all are whole and few bits suffice, otherwise ranks."""

    def __init__(self, timestamp: NDArray[np.int64], at_most_bits: int) -> None:
        self._first, self._unit, self._timestamp = int(timestamp.min()), MICROSECONDS, timestamp
        self.bits = ((int(timestamp.max()) - self._first) // MICROSECONDS).bit_length()
        blocks = (timestamp[first : first + _BLOCK] for first in range(0, len(timestamp), _BLOCK))
        if self.bits > at_most_bits or any(np.any(block % MICROSECONDS) for block in blocks):
            self._first, self._unit = 0, 1
            self._timestamp = np.unique(timestamp, return_inverse=True)[1]
            self.bits = int(self._timestamp.max()).bit_length()

    def of(self, rows: slice) -> NDArray[np.uint64]:
        return ((self._timestamp[rows] - self._first) // self._unit).astype(np.uint64)


def _settle_equal_keys(
    events: CodedEvents, ties: _Ties, rows: NDArray[np.int64], key: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """Put events of equal key in the order of their whole hash, and of the item should even that be equal.

    Args:
        rows: positions of the events, sorted by key. key: of each, in that order.
    """
    same = np.zeros(len(rows) + 1, dtype=bool)
    same[1:-1] = key[1:] == key[:-1]
    places = np.flatnonzero(same[1:] | same[:-1])
    equal = rows[places]
    rows[places] = equal[np.lexsort((events.item[equal], ties.of(equal), key[places]))]
    return rows


def _differs(values: NDArray[np.int32] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each value but the first differs from the one before it, [values - 1]."""
    differs: NDArray[np.bool_] = values[1:] != values[:-1]
    return differs
