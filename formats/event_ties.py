"""The hash that orders events of one user at one time, which have no true order.

Fixed for ever and the same on every machine: dataset and stored histories must agree on what a user's newest event is.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def user_hashes(user_ids: Iterable[str]) -> NDArray[np.uint64]:
    """64 bits of BLAKE2b of each user id, [users]."""
    return _text_hashes(user_ids)


def item_hashes(items: Iterable[tuple[str, str]]) -> NDArray[np.uint64]:
    """64 bits of BLAKE2b of each (domain, item_id), [items]. The length keeps ("a", "bc") and ("ab", "c") apart."""
    return _text_hashes(f"{len(domain)}:{domain}{item_id}" for domain, item_id in items)


def tie_hashes(
    user_hash: NDArray[np.uint64], item_hash: NDArray[np.uint64], timestamp: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """What events with equal user and time are sorted by, and by the item where even this is equal.

    Args:
        user_hash, item_hash: of each event, [events].
        timestamp: microseconds since 1970, UTC, [events].
    """
    return _mixed(user_hash ^ item_hash ^ _mixed(timestamp.view(np.uint64)))


def _text_hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _mixed(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The rounds of SplitMix64 (Steele, Lea and Flood 2014), a bijection."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits
