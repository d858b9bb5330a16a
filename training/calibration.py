"""Whether the probability that a scorer gives its first place says how often that place is right."""

from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from training.metrics import Ranks

Floats = NDArray[np.float64]

ScoreKind = Literal["logits", "shares"]

BINS: Final = 15


def confidence(scores: NDArray[np.float32], kind: ScoreKind) -> Floats:
    """Probability of the first place among the candidates.

    Args:
        scores: -inf where an item is no candidate, [cases, candidates].
        kind: `logits`: that of their softmax, exp(max) / sum of exp. `shares`: they are probabilities up to a factor, none
            below 0: max / sum; where all are 0, all candidates are equally probable.
    Returns:
        [cases].
    """
    if kind == "logits":
        logits = torch.from_numpy(scores)
        return (logits.amax(1) - logits.logsumexp(1)).double().exp().numpy()
    candidates = np.count_nonzero(scores >= 0, axis=1)
    total = np.maximum(scores, 0).sum(axis=1, dtype=np.float64)
    probability: Floats = np.where(total > 0, scores.max(axis=1) / np.where(total > 0, total, 1), 1 / candidates)
    return probability


def first_is_right(scores: NDArray[np.float32], target: NDArray[np.int64], ranks: Ranks) -> Floats:
    """Probability that the first place is the target, equal ones in random order, [cases]."""
    own = scores[np.arange(len(target)), target]
    # A mid-rank of 1 + t / 2 with nothing above means t others beside the target.
    return np.where(own == scores.max(axis=1), 1 / (2 * ranks - 1), 0.0)


def expected_calibration_error(confident: Floats, right: Floats, bins: int = BINS) -> float:
    """Sum over bins of n_b / n · |mean confidence - share that is right| (Naeini et al. 2015; Guo et al. 2017, top label).

    The bins hold equally many cases (Nixon et al. 2019): with thousands of items nearly all confidences are small, and bins of
    equal width would put them all into the first.

    Args:
        confident: predicted probability of the first place, [cases], at least one.
        right: 1 where the first place was the target, [cases].
        bins: at most so many; each holds a case at least.
    """
    order = np.argsort(confident, kind="stable")
    gap = confident[order] - right[order]
    return float(sum(abs(part.sum()) for part in np.array_split(gap, bins)) / len(gap))
