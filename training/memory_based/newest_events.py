"""What a memory-based recommender reads of a history: its newest known events, with their ages."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.cases import Cases

MICROSECONDS_PER_DAY: Final = 86_400 * 10**6


@dataclass(frozen=True)
class NewestEvents:
    """Events of some cases in one structure, newest first: those of case c are [offsets[c], offsets[c + 1]).

    offsets: [cases + 1].
    item_index: from 1, never unknown, [events].
    place: 0 is the newest event of its case, [events].
    age_days: between the event and its case, [events].
    """

    offsets: NDArray[np.int64]
    item_index: NDArray[np.int32]
    place: NDArray[np.int64]
    age_days: NDArray[np.float64]


def newest_events(cases: Cases, columns: slice, longest: int | None) -> NewestEvents:
    """Of every history the newest events with these items.

    Args:
        cases: with their histories.
        columns: item indices that count; others are skipped before the history is cut.
        longest: at most so many of each case; None: all.
    """
    found = [_newest(cases.history(case), columns, longest) for case in range(len(cases))]
    lengths = np.array([len(places) for places in found], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    event = np.concatenate([np.zeros(0, dtype=np.int64), *found]) + np.repeat(cases.start, lengths)
    age = np.repeat(cases.timestamp[cases.position], lengths) - cases.timestamp[event]
    return NewestEvents(
        offsets=offsets,
        item_index=cases.item_index[event],
        place=np.arange(len(event)) - np.repeat(offsets[:-1], lengths),
        age_days=age / MICROSECONDS_PER_DAY,
    )


def _newest(history: NDArray[np.int32], columns: slice, longest: int | None) -> NDArray[np.int64]:
    """Places in the history, newest first."""
    places: NDArray[np.int64] = np.flatnonzero((history >= columns.start) & (history < columns.stop))[::-1]
    return places[:longest]
