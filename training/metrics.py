"""HR@k, NDCG@k and MRR@k of next-item predictions: pure functions of ranks.

A rank is 1 + better candidates + half of the equal ones (mid-rank), so that a constant scorer gets the rank of chance and
not the first place. A target that the model cannot answer (cold) has rank infinity: a miss everywhere.
"""

import numpy as np
from numpy.typing import NDArray

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
