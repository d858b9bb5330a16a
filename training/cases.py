"""Evaluation cases: every event of validation or test, to be predicted from all the user's events before it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from training.dataset import Dataset, EventTable
from training.manifest import PARTS

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True)
class Cases:
    """Histories and targets in one structure: case c has the history `item_index[start[c] : position[c]]`.

    item_index, domain, timestamp: all events of each user joined over the parts, oldest first, [joined events].
    user_offsets: events of user u are [offsets[u], offsets[u + 1]), [users + 1].
    user, start, position: of each case its user, where the user begins and where the target stands, [cases].
    target, target_domain: item_index (0 where training does not know the item) and domain number of the target, [cases].
    """

    item_index: NDArray[np.int32]
    domain: NDArray[np.int16]
    timestamp: NDArray[np.int64]
    user_offsets: NDArray[np.int64]
    user: NDArray[np.int64]
    start: NDArray[np.int64]
    position: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.position)

    def history(self, case: int) -> NDArray[np.int32]:
        """Item indices of everything that the user did before the target, oldest first, 0 where unknown."""
        return self.item_index[self.start[case] : self.position[case]]

    def histories(self) -> list[NDArray[np.int32]]:
        """`history` of every case."""
        return [self.history(case) for case in range(len(self))]

    def take(self, which: NDArray[np.int64]) -> "Cases":
        """The cases with these numbers."""
        chosen = {name: getattr(self, name)[which] for name in ("user", "start", "position")}
        return replace(self, **chosen)

    @property
    def target(self) -> NDArray[np.int32]:
        """Item index of each target, [cases]."""
        return self.item_index[self.position]

    @property
    def target_domain(self) -> NDArray[np.int16]:
        """Domain number of each target, [cases]."""
        return self.domain[self.position]


def contexts(dataset: Dataset, part: Literal["validation", "test"]) -> Cases:
    """All cases of one part, in order of user and time.

    The history of a case is what the service would have: training events (or those in context/), validation events and
    earlier events of the part itself.
    """
    tables = [dataset.part(name) for name in PARTS[: PARTS.index(part) + 1]]
    counts = [_events_per_user(table, users=tables[-1].users) for table in tables]
    user_offsets = np.concatenate([[0], np.cumsum(np.sum(counts, axis=0))])
    places = _joined_places(counts, user_offsets)
    user = np.repeat(np.arange(len(counts[-1])), counts[-1])
    return Cases(
        item_index=_joined([table.item_index for table in tables], places),
        domain=_joined([table.domain for table in tables], places),
        timestamp=_joined([table.timestamp for table in tables], places),
        user_offsets=user_offsets,
        user=user,
        start=user_offsets[user],
        position=places[-1],
    )


def _events_per_user(table: EventTable, users: int) -> NDArray[np.int64]:
    """Number of events of each user, 0 for those that are numbered in a later part, [users]."""
    counts = np.zeros(users, dtype=np.int64)
    counts[: table.users] = np.diff(table.user_offsets)
    return counts


def _joined_places(counts: Sequence[NDArray[np.int64]], user_offsets: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Per part, where each of its events stands among the joined events."""
    begins = user_offsets[:-1].copy()
    places = []
    for count in counts:
        own_begins = np.cumsum(count) - count
        places.append(np.arange(count.sum()) + np.repeat(begins - own_begins, count))
        begins += count
    return places


def _joined(parts: Sequence[NDArray[Scalar]], places: Sequence[NDArray[np.int64]]) -> NDArray[Scalar]:
    joined = np.empty(sum(map(len, parts)), dtype=parts[0].dtype)
    for values, place in zip(parts, places, strict=True):
        joined[place] = values
    return joined
