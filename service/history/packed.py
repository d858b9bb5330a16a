"""A user's history as one byte string: the newest events, 12 bytes each, and the items that the user had before them.

    version 1   0x01, events, oldest first
    version 2   0x02, width (1 byte), length of the entries in bytes (4 bytes), entries of `service.history.seen`, events

    event = item_hash (8 bytes) + timestamp (4 bytes: seconds since 1970, UTC), all numbers little-endian, unsigned

The hash (`formats.event_ties.item_hashes`) stands for domain and item id, so that histories outlive every model: each
bundle finds its own items in it. `append.lua` reads and writes the same bytes.
"""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from service.history.seen import NOTHING_SEEN, Seen, pack_seen, unpack_seen

VERSION = b"\x01"
VERSION_WITH_SEEN = b"\x02"
HEADER = struct.Struct("<cBI")
EVENT = np.dtype([("item_hash", "<u8"), ("timestamp", "<u4")])
MAX_TIMESTAMP = 2**32 - 1

Events = np.ndarray[tuple[int], np.dtype[Any]]


@dataclass(frozen=True)
class History:
    """What is stored of one user. events: oldest first, [events] of `EVENT`, read-only. seen: items from before them."""

    events: Events
    seen: Seen


def pack(events: Events, seen: Seen = NOTHING_SEEN) -> bytes:
    """Events, oldest first, [events] of `EVENT`, and the items from before them -> what Redis holds."""
    if not len(seen.prefixes):
        return VERSION + events.tobytes()
    entries = pack_seen(seen)
    return HEADER.pack(VERSION_WITH_SEEN, seen.width, len(entries)) + entries + events.tobytes()


def unpack(value: bytes) -> History:
    """What Redis holds -> the history.

    Raises:
        ValueError: another version, or cut off.
    """
    start, seen = len(VERSION), NOTHING_SEEN
    try:
        if value[:1] == VERSION_WITH_SEEN:
            _, width, length = HEADER.unpack_from(value)
            start = HEADER.size + length
            seen = unpack_seen(value[HEADER.size : start], width)
        elif value[:1] != VERSION:
            raise ValueError("unknown version")
        return History(np.frombuffer(value, dtype=EVENT, offset=start), seen)
    except (ValueError, struct.error):
        raise ValueError("not a packed history of version 1 or 2") from None
