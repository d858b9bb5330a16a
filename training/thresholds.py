"""Thresholds on events per item and per user, counted on training events only and repeated until nothing changes."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Fate(IntEnum):
    """What the thresholds did to a training event."""

    KEPT = 0
    ITEM = 1
    USER = 2


@dataclass(frozen=True)
class Round:
    """What one round removed: items below the threshold, then users below theirs, with their events."""

    items: int
    item_events: int
    users: int
    user_events: int


def apply_thresholds(
    user: NDArray[np.int32], item: NDArray[np.int32], min_item_events: int, min_user_events: int
) -> tuple[NDArray[np.uint8], list[Round]]:
    """Fate of each training event, [events], and the rounds; the last round is the last that removed anything."""
    fate = np.full(len(user), Fate.KEPT, dtype=np.uint8)
    alive = np.arange(len(user))
    rounds: list[Round] = []
    while True:
        items, alive, item_events = _remove_rare(item, alive, min_item_events)
        fate[item_events] = Fate.ITEM
        users, alive, user_events = _remove_rare(user, alive, min_user_events)
        fate[user_events] = Fate.USER
        if not items and not users:
            return fate, rounds
        rounds.append(Round(items, len(item_events), users, len(user_events)))


def _remove_rare(
    code: NDArray[np.int32], alive: NDArray[np.int64], minimum: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Number of codes with fewer events than the minimum, the events that stay, the events that go."""
    codes = code[alive]
    counts = np.bincount(codes)
    rare = (counts > 0) & (counts < minimum)
    goes = rare[codes]
    return int(np.count_nonzero(rare)), alive[~goes], alive[goes]
