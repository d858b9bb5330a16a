"""Items that a user has had and that no longer stand in the stored history: a set of the first bits of their hashes.

A set may hold 32, 24 or 16 bits of each item. It never forgets an item, whatever its size: once it is full
(`MAX_BYTES`), every entry gives up 8 bits. So a seen item is never shown; what can happen is that an unseen one is
hidden, because it shares its first bits with a seen one (decision 10 says how often).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 131_072  # all 65,536 values of the narrowest entries fit, so nothing ever needs to be dropped
WIDTHS = (4, 3, 2)  # bytes of an entry


@dataclass(frozen=True)
class Seen:
    """The set of one user. prefixes: the first `8 * width` bits of each hash, in any order, [items]."""

    prefixes: NDArray[np.uint64]
    width: int

    def among(self, sorted_hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which of these items the user has had.

        Args:
            sorted_hashes: of `formats.event_ties.item_hashes`, rising, [items].
        Returns:
            Places in `sorted_hashes`, [found].
        """
        if not len(self.prefixes):
            return np.zeros(0, dtype=np.int64)
        # Rising hashes have rising first bits: all items of one prefix stand side by side.
        dropped = np.uint64(64 - 8 * self.width)
        lowest = np.unique(self.prefixes) << dropped
        first = np.searchsorted(sorted_hashes, lowest)
        after = np.searchsorted(sorted_hashes, lowest | ((np.uint64(1) << dropped) - np.uint64(1)), side="right")
        within = first < after
        if not within.any():
            return np.zeros(0, dtype=np.int64)
        spans = [np.arange(start, end) for start, end in zip(first[within], after[within], strict=True)]
        return np.concatenate(spans)


NOTHING_SEEN = Seen(np.zeros(0, dtype=np.uint64), WIDTHS[0])


def seen_of(hashes: NDArray[np.uint64]) -> Seen:
    """The set of these items, [items], as wide as it fits into `MAX_BYTES`."""
    for width in WIDTHS:
        prefixes = np.unique(hashes >> np.uint64(64 - 8 * width))
        if len(prefixes) * width <= MAX_BYTES:
            break
    return Seen(prefixes, width)


def pack_seen(seen: Seen) -> bytes:
    """Entries, little-endian, one after the other."""
    as_bytes = seen.prefixes.astype("<u8").view(np.uint8).reshape(-1, 8)
    return as_bytes[:, : seen.width].tobytes()


def unpack_seen(entries: bytes, width: int) -> Seen:
    """The opposite of `pack_seen`.

    Raises:
        ValueError: no such width, or cut off within an entry.
    """
    if width not in WIDTHS or len(entries) % width:
        raise ValueError("not a packed set of seen items")
    if width == 4:
        return Seen(np.frombuffer(entries, dtype="<u4").astype(np.uint64), width)
    wide = np.zeros((len(entries) // width, 8), dtype=np.uint8)
    wide[:, :width] = np.frombuffer(entries, dtype=np.uint8).reshape(-1, width)
    return Seen(wide.view("<u8").ravel().astype(np.uint64), width)
