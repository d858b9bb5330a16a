"""What the arms show: how much of the catalogue, how evenly, and how much of it alike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shown:
    """Of one arm.

    coverage: share of the catalogue that was shown at all.
    effective_items: as many items, shown equally often, would be as diverse (exponential of the entropy).
    """

    coverage: float
    effective_items: float


@dataclass(frozen=True)
class Lists:
    """arms: of each. overlap: of each treatment, share of its k most shown items that are among the control's k."""

    arms: dict[str, Shown]
    overlap: dict[str, float]
    k: int


def lists(counts: Mapping[str, NDArray[np.int64]], k: int) -> Lists:
    """From how often each item of the catalogue was shown, [items], by arm, control first; k: of the overlap."""
    names = list(counts)
    tops = {name: _most_shown(shown, k) for name, shown in counts.items()}
    control = tops[names[0]]
    return Lists(
        arms={name: _shown(shown) for name, shown in counts.items()},
        overlap={name: len(tops[name] & control) / max(len(tops[name]), 1) for name in names[1:]},
        k=k,
    )


def _most_shown(shown: NDArray[np.int64], k: int) -> set[int]:
    """Places in the catalogue; of equals the first, so that the answer does not depend on the sort."""
    return {int(item) for item in np.argsort(-shown, kind="stable")[:k] if shown[item] > 0}


def _shown(shown: NDArray[np.int64]) -> Shown:
    """Coverage and diversity of one arm; 0 where nothing was shown."""
    some = shown[shown > 0]
    if len(some) == 0:
        return Shown(0.0, 0.0)
    share = some / some.sum()
    return Shown(len(some) / len(shown), float(np.exp(-(share * np.log(share)).sum())))
