"""Click-through by rank: where in the list people click, and what is left of a difference when ranks are shown alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RankCounts:
    """One arm: how often each rank was shown and clicked, from rank 1, [ranks]."""

    shown: NDArray[np.int64]
    clicked: NDArray[np.int64]


@dataclass(frozen=True)
class ByRank:
    """Click-through at each rank by arm, from rank 1; None where the rank was not shown.

    standardised: click-through of each arm if all showed the ranks as often as they do together; over the ranks that
        every arm shows. None if there are none.
    """

    ctr: dict[str, tuple[float | None, ...]]
    standardised: dict[str, float | None]


def by_rank(counts: Mapping[str, RankCounts]) -> ByRank:
    """Of arms with the same number of ranks."""
    shown = np.stack([arm.shown for arm in counts.values()])
    clicked = np.stack([arm.clicked for arm in counts.values()])
    everywhere = (shown > 0).all(axis=0)
    weights = np.where(everywhere, shown.sum(axis=0), 0)
    rates = clicked / np.maximum(shown, 1)
    total = int(weights.sum())
    return ByRank(
        ctr={
            name: tuple(float(rate) if count else None for rate, count in zip(arm_rates, arm_shown, strict=True))
            for name, arm_rates, arm_shown in zip(counts, rates, shown, strict=True)
        },
        standardised={
            name: float(arm_rates @ weights / total) if total else None
            for name, arm_rates in zip(counts, rates, strict=True)
        },
    )
