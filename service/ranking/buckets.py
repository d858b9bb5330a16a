"""Shapes that a GPU is prepared for: a batch is padded to the smallest one that holds it.

Buffers and CUDA graphs belong to one shape each, so there have to be few. Widths grow by fours: a wider scatter costs a GPU
next to nothing, one more shape costs memory and time at load.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.ranking.session import Batch

ROWS = (1, 2, 4, 8, 16, 32, 64)
EXCLUDED = (64, 256, 1024, 4096)
INCLUDED = (1, 1024)  # most requests name no items that alone may be answered


@dataclass(frozen=True, order=True)
class Shape:
    """The free sizes of a batch: requests, `exclude` and `include` of each."""

    rows: int
    excluded: int
    included: int


@dataclass(frozen=True)
class Buckets:
    """All shapes up to a largest batch. rows: rising."""

    rows: tuple[int, ...]

    @classmethod
    def up_to(cls, max_batch: int) -> "Buckets":
        """Batches of 1, 2, 4 … requests, the last one of `max_batch` or 64, whichever is less."""
        largest = min(max_batch, ROWS[-1])
        return cls((*(rows for rows in ROWS if rows < largest), largest))

    def shapes(self) -> list[Shape]:
        """Every shape; the smallest first, then the largest, so that what grows with the sizes seen grows once."""
        smallest, *others = sorted(
            Shape(rows, excluded, included) for rows in self.rows for excluded in EXCLUDED for included in INCLUDED
        )
        return [smallest, *reversed(others)]

    def holding(self, batch: Batch) -> Shape | None:
        """The smallest shape that holds a batch, None if it is larger than all."""
        rows = _at_least(self.rows, len(batch.history))
        excluded = _at_least(EXCLUDED, batch.exclude.shape[1])
        included = _at_least(INCLUDED, batch.include.shape[1])
        return None if rows is None or excluded is None or included is None else Shape(rows, excluded, included)


def pad(batch: Batch, shape: Shape) -> Batch:
    """The batch in a shape that holds it: the first request again in the rows left over, 0 (no item) in the places."""
    return replace(
        batch,
        history=_padded(batch.history, shape.rows, batch.history.shape[1]),
        exclude=_padded(batch.exclude, shape.rows, shape.excluded),
        restricted=_padded(batch.restricted, shape.rows, batch.restricted.shape[1]),
        include=_padded(batch.include, shape.rows, shape.included),
    )


def _padded(rows: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    padded = np.zeros((height, width), dtype=rows.dtype)
    padded[: len(rows), : rows.shape[1]] = rows
    # Not zeros: a history without its start is none that the network knows.
    padded[len(rows) :] = padded[0]
    return padded


def _at_least(sizes: tuple[int, ...], wanted: int) -> int | None:
    return next((size for size in sizes if size >= wanted), None)
