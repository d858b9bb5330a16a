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

_KEY_BITS: Final = 64
# Events hashed at a time, so that the intermediate arrays stay in the processor's cache.
_BLOCK: Final = 1 << 16
_REPEATS_BLOCK: Final = 1 << 20


def in_order(events: CodedEvents) -> CodedEvents:
    """The events sorted by user, time and `tie_hash`. Only exact repeats of an event can stand in either order."""
    return events.take(_sorted_rows(events, tie_hash(events)))


def tie_hash(events: CodedEvents) -> NDArray[np.uint64]:
    """`tie_hashes` of the events, [events]."""
    of_user = user_hashes(events.user_ids)
    of_item = item_hashes(zip((events.domains[domain] for domain in events.item_domain), events.item_ids, strict=True))
    hashes = np.empty(len(events), dtype=np.uint64)
    for first in range(0, len(events), _BLOCK):
        block = slice(first, first + _BLOCK)
        hashes[block] = tie_hashes(of_user[events.user[block]], of_item[events.item[block]], events.timestamp[block])
    return hashes


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


def _sorted_rows(events: CodedEvents, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Positions of the events in final order.

    One sort of one 64-bit key: user, time and as many leading bits of the hash as fit. The few events that still tie are
    then settled by the whole hash, and by the item should even that be equal.
    """
    time = _dense_times(events.timestamp)
    user_bits, time_bits = _bits(events.user), _bits(time)
    key = events.user.astype(np.uint64)
    key <<= np.uint64(time_bits)
    key |= time
    free_bits = _KEY_BITS - user_bits - time_bits
    if free_bits:
        key <<= np.uint64(free_bits)
        key |= hashes >> np.uint64(_KEY_BITS - free_bits)
    rows = np.argsort(key)
    return _settle_ties(rows, key, hashes, events.item)


def _settle_ties(
    rows: NDArray[np.int64], key: NDArray[np.uint64], hashes: NDArray[np.uint64], item: NDArray[np.int32]
) -> NDArray[np.int64]:
    key = key[rows]
    same = np.zeros(len(rows) + 1, dtype=bool)
    same[1:-1] = key[1:] == key[:-1]
    places = np.flatnonzero(same[1:] | same[:-1])
    tied = rows[places]
    rows[places] = tied[np.lexsort((item[tied], hashes[tied], key[places]))]
    return rows


def _dense_times(timestamp: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Times as numbers from 0 in the same order that need few bits: seconds if all are whole, otherwise ranks."""
    seconds = timestamp // MICROSECONDS
    if not np.array_equal(seconds * MICROSECONDS, timestamp):
        ranks: NDArray[np.uint64] = np.unique(timestamp, return_inverse=True)[1].astype(np.uint64)
        return ranks
    from_zero: NDArray[np.uint64] = (seconds - seconds.min()).astype(np.uint64)
    return from_zero


def _bits(numbers: NDArray[np.int32] | NDArray[np.uint64]) -> int:
    return int(numbers.max(initial=0)).bit_length()


def _differs(values: NDArray[np.int32] | NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each value but the first differs from the one before it, [values - 1]."""
    differs: NDArray[np.bool_] = values[1:] != values[:-1]
    return differs
