"""A user's history as one byte string: a version byte, then 12 bytes an event, oldest first.

    event = item_hash (8 bytes) + timestamp (4 bytes: seconds since 1970, UTC), both little-endian, unsigned

The hash stands for domain and item id, so that histories outlive every model: each bundle finds its own items in it.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = b"\x01"
EVENT = np.dtype([("item_hash", "<u8"), ("timestamp", "<u4")])
MAX_TIMESTAMP = 2**32 - 1

Events = np.ndarray[tuple[int], np.dtype[Any]]


def text_hash(text: str) -> int:
    """64 bits of BLAKE2b."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def item_hash(domain: str, item_id: str) -> int:
    """64 bits that stand for an item. The length keeps ("a", "bc") and ("ab", "c") apart."""
    return text_hash(f"{len(domain)}:{domain}{item_id}")


def item_hashes(items: Iterable[tuple[str, str]]) -> NDArray[np.uint64]:
    """`item_hash` of each (domain, item_id), [items]."""
    return np.fromiter((item_hash(domain, item_id) for domain, item_id in items), dtype=np.uint64)


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
