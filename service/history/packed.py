"""A user's history as one byte string: a version byte, then 12 bytes an event, oldest first.

    event = item_hash (8 bytes) + timestamp (4 bytes: seconds since 1970, UTC), both little-endian, unsigned

The hash (`formats.event_ties.item_hashes`) stands for domain and item id, so that histories outlive every model: each
bundle finds its own items in it.
"""

from typing import Any

import numpy as np

VERSION = b"\x01"
EVENT = np.dtype([("item_hash", "<u8"), ("timestamp", "<u4")])
MAX_TIMESTAMP = 2**32 - 1

Events = np.ndarray[tuple[int], np.dtype[Any]]


def pack(events: Events) -> bytes:
    """Events, oldest first, [events] of `EVENT` -> what Redis holds."""
    return VERSION + events.tobytes()


def unpack(value: bytes) -> Events:
    """What Redis holds -> events, oldest first, [events] of `EVENT`, read-only.

    Raises:
        ValueError: another version, or cut off within an event.
    """
    if value[:1] != VERSION or (len(value) - 1) % EVENT.itemsize:
        raise ValueError("not a packed history of version 1")
    return np.frombuffer(value, dtype=EVENT, offset=1)
