"""Evaluation cases in which one thing is not as it was: the history, the target, the future, or the order of ties."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.cases import Cases

Ints = NDArray[np.int64]


def of_another_user(cases: Cases, random: np.random.Generator) -> tuple[Ints, Ints]:
    """Pair every case with one of another user.

    Returns:
        numbers of cases, and of as many others, each taken once. Cases are left out only where one user has more than half.
    """
    group = random.permutation(int(cases.user.max(initial=-1)) + 1)[cases.user]
    by_user = np.argsort(group, kind="stable")
    # As far round as the largest user has cases: nobody meets their own.
    others = np.roll(by_user, -int(np.bincount(group).max(initial=0)))
    different = cases.user[by_user] != cases.user[others]
    return by_user[different], others[different]


def spliced(cases: Cases, history_of: Ints, target_of: Ints, time_of: Ints) -> Cases:
    """The histories of some cases with the targets of others, each a user of its own.

    Args:
        cases: to choose from.
        history_of, target_of, time_of: numbers of cases, as many of each. The events of a history keep their ages.
    """
    histories = [np.arange(cases.start[case], cases.position[case]) for case in history_of]
    targets = cases.position[target_of]
    events = [np.append(history, target) for history, target in zip(histories, targets, strict=True)]
    joined = _copied(cases, events, cases.position[history_of] - cases.start[history_of])
    time = cases.timestamp[cases.position[time_of]]
    later = time - cases.timestamp[cases.position[history_of]]
    timestamp = joined.timestamp + np.repeat(later, np.diff(joined.user_offsets))
    timestamp[joined.position] = time
    return replace(joined, timestamp=timestamp)


def with_other_future(cases: Cases, item_domain: NDArray[np.int64], random: np.random.Generator) -> Cases:
    """The cases, with other items for the target and for everything after it, and other times after it.

    Args:
        cases: each becomes a user of its own.
        item_domain: domain number of each item, [items + 1].
        random: draws the items and times.
    """
    ends = cases.user_offsets[np.searchsorted(cases.user_offsets, cases.position, side="right")]
    events = [np.arange(start, end) for start, end in zip(cases.start, ends, strict=True)]
    joined = _copied(cases, events, cases.position - cases.start)
    lengths = np.diff(joined.user_offsets)
    place = np.arange(lengths.sum()) - np.repeat(joined.position, lengths)
    item = np.where(place >= 0, random.integers(1, len(item_domain), len(place)), joined.item_index)
    later = random.integers(0, 10**12, len(place)) * (place > 0)
    return replace(
        joined,
        item_index=item.astype(np.int32),
        domain=np.where(place >= 0, item_domain[item], joined.domain).astype(np.int16),
        timestamp=joined.timestamp + later,
    )


def reordered_ties(cases: Cases, random: np.random.Generator) -> Cases:
    """The cases, with events of one user at one time in another random order; what is to be predicted stays to be.

    Args:
        cases: all of a part, in whatever order; they stay in it.
        random: draws the order.
    """
    user = np.repeat(np.arange(len(cases.user_offsets) - 1), np.diff(cases.user_offsets))
    predicted = np.zeros(len(user), dtype=np.bool_)
    predicted[cases.position] = True
    # Leave-one-out can cut between two ties; then they stay apart, or other events would have to be predicted.
    order = np.lexsort((random.random(len(user)), predicted, cases.timestamp, user))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return replace(
        cases,
        item_index=cases.item_index[order],
        domain=cases.domain[order],
        timestamp=cases.timestamp[order],
        position=place[cases.position],
    )


def _copied(cases: Cases, events: Sequence[Ints], place: Ints) -> Cases:
    """Users of their own with these events each, and the target at this place among them."""
    chosen = np.concatenate([np.zeros(0, dtype=np.int64), *events])
    offsets = np.concatenate([[0], np.cumsum([len(of_case) for of_case in events], dtype=np.int64)])
    return Cases(
        item_index=cases.item_index[chosen],
        domain=cases.domain[chosen],
        timestamp=cases.timestamp[chosen],
        user_offsets=offsets,
        user=np.arange(len(events)),
        start=offsets[:-1],
        position=offsets[:-1] + place,
    )
