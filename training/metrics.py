"""Scores -> the target's rank and the first places; ranks -> HR@k, NDCG@k and MRR@k. Pure functions.

A rank is 1 + better candidates + half of the equal ones (mid-rank), so that a constant scorer gets the rank of chance and
not the first place. A target that the model cannot answer (cold) has rank infinity: a miss everywhere.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from formats.errors import WrongUse

Ranks = NDArray[np.float64]


def mid_ranks(scores: NDArray[np.float32], target: NDArray[np.int64]) -> Ranks:
    """Rank of one target per row among all its candidates.

    Args:
        scores: -inf where an item is no candidate, [cases, items].
        target: column of the target, [cases].
    Returns:
        [cases], from 1.
    Raises:
        FloatingPointError: a score is NaN.
        ValueError: a target is no candidate.
    """
    if np.isnan(scores).any():
        raise FloatingPointError("a score is NaN: the model is broken, ranks would mean nothing")
    own = scores[np.arange(len(target)), target][:, None]
    if np.isneginf(own).any():
        raise ValueError("a target is not among its candidates")
    greater = (scores > own).sum(1)
    ties = (scores == own).sum(1) - 1
    ranks: Ranks = 1 + greater + ties / 2
    return ranks


def hr_at_k(rank: Ranks, k: int) -> Ranks:
    """Hit rate: 1 where the target is among the first k, [cases]."""
    return (rank <= k).astype(np.float64)


def ndcg_at_k(rank: Ranks, k: int) -> Ranks:
    """NDCG@k with one relevant item, so the ideal DCG is 1 (Järvelin and Kekäläinen 2002), [cases]."""
    return np.where(rank <= k, 1 / np.log2(rank + 1), 0.0)


def mrr_at_k(rank: Ranks, k: int) -> Ranks:
    """Reciprocal rank, 0 below the cut-off, [cases]."""
    return np.where(rank <= k, 1 / rank, 0.0)


METRICS: Final = {"hr": hr_at_k, "ndcg": ndcg_at_k, "mrr": mrr_at_k}


def metric_named(name: str) -> Callable[[Ranks], Ranks]:
    """The metric that is written `ndcg@10`.

    Raises:
        WrongUse: there is none of this name, or the cut-off is no number from 1.
    """
    metric, _, k = name.partition("@")
    if metric not in METRICS or not k.isdecimal() or int(k) < 1:
        raise WrongUse(f"unknown metric {name!r}: {', '.join(METRICS)} with a cut-off, as in ndcg@10")
    return partial(METRICS[metric], k=int(k))


def first_places(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Columns of the k best candidates of each row, best first; of equal ones the lower column, as the exported graph does.

    Args:
        scores: -inf where an item is no candidate, [cases, items].
        k: length of a list.
    Returns:
        [cases, k]; -1 where there are fewer candidates.
    """
    rows, found = np.arange(len(scores))[:, None], min(k, scores.shape[1])
    columns = np.argpartition(scores, -found, axis=1)[:, -found:].astype(np.int64)
    _prefer_lower_columns(scores, columns)
    values = scores[rows, columns]
    order = np.lexsort((columns, -values), axis=1)
    columns = np.where(np.isneginf(values), -1, columns)[rows, order]
    return np.pad(columns, ((0, 0), (0, k - found)), constant_values=-1)


def _prefer_lower_columns(scores: NDArray[np.float32], columns: NDArray[np.int64]) -> None:
    """Where more are equal to the last place than fit, the partition took any of them."""
    last = scores[np.arange(len(scores))[:, None], columns].min(axis=1)
    places = columns.shape[1]
    for row in np.flatnonzero(np.count_nonzero(scores >= last[:, None], axis=1) > places):
        above, equal = np.flatnonzero(scores[row] > last[row]), np.flatnonzero(scores[row] == last[row])
        columns[row] = np.concatenate([above, equal])[:places]
