"""Where a scorer is good: by how much is known of the user in the domain, and by how often the target was in training."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.case_table import ranks_of
from training.metrics import metric_named

# (name, smallest, largest) of the bins; both ends belong to them.
Bins = tuple[tuple[str, int, int], ...]
_MORE = 2**31
SLICES: Final[dict[str, Bins]] = {
    "own_history": (("0", 0, 0), ("1-2", 1, 2), ("3-5", 3, 5), ("more", 6, _MORE)),
    "target_count": (("0", 0, 0), ("1-5", 1, 5), ("6-20", 6, 20), ("more", 21, _MORE)),
}
METRICS: Final = ("ndcg@10", "hr@10")


def slices(table: pl.DataFrame, scorers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How many cases each slice has, and NDCG@10 and HR@10 of every scorer on them (None without any).

    Args:
        table: cases, as `training.case_table` makes it.
        scorers: names of its ranks.
    Returns:
        column -> bin -> n and, by scorer, the metrics.
    """
    return {
        column: {name: _slice(table.filter(pl.col(column).is_between(low, high)), scorers) for name, low, high in bins}
        for column, bins in SLICES.items()
    }


def _slice(table: pl.DataFrame, scorers: Sequence[str]) -> dict[str, Any]:
    return {"n": len(table), **{name: _metrics(ranks_of(table, name)) for name in scorers}}


def _metrics(ranks: NDArray[np.float64]) -> dict[str, float] | None:
    return {name: float(metric_named(name)(ranks).mean()) for name in METRICS} if len(ranks) else None
