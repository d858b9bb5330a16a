"""By how much one model is better than another on events that neither was trained on."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from training.bootstrap import Estimate, user_bootstrap
from training.cases import Cases, contexts
from training.dataset import Dataset
from training.task import drawn_cases


def known_cases(dataset: Dataset, max_cases: int) -> Cases:
    """Test events of items and users that training knows, at most so many of each domain."""
    cases = contexts(dataset, "test")
    known = [history.any() for history in cases.histories()]
    cases = cases.take(np.flatnonzero((cases.target > 0) & known))
    return cases.take(drawn_cases(cases, max_cases, seed=0))


def gap_per_domain(
    worse: NDArray[np.float64], better: NDArray[np.float64], cases: Cases, domains: int
) -> list[Estimate | None]:
    """Mean of `worse` - `better` in every domain, with an interval over users, [domain]; None without cases.

    Args:
        worse, better: of each case, [cases].
        cases: what they are of.
        domains: how many there are.
    """
    return list(user_bootstrap(worse - better, cases.user, cases.target_domain.astype(np.int64) - 1, domains).groups)


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's, None of fewer than three or where one of them does not vary."""
    if len(a) < 3 or len(set(a)) == 1 or len(set(b)) == 1:
        return None
    return float(spearmanr(a, b).statistic)
