"""What must not get worse while click-through gets better: errors, fallbacks, latency."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from service.experiments.analysis.ratio import LEVEL, Interval, Ratio
from service.experiments.analysis.sums import Sums

SLOW: Final = Ratio("slow_share", "slow_requests", "requests")
# Of each, more is worse.
GUARDRAILS: Final = (
    Ratio("error_share", "errors", "requests"),
    Ratio("fallback_share", "popularity_requests", "requests"),
    Ratio("degraded_share", "degraded_requests", "requests"),
    SLOW,
    Ratio("mean_latency_ms", "latency_sum", "requests"),
)


@dataclass(frozen=True)
class Quantile:
    """Latency that a share of requests stays below, in ms, with a 95 % interval."""

    share: float
    value: float
    interval: Interval


def latency_quantiles(
    counts: NDArray[np.int64], edges: NDArray[np.float64], design_effect: float, shares: tuple[float, ...] = (0.5, 0.95)
) -> tuple[Quantile, ...]:
    """From a histogram.

    Args:
        counts: requests in each bucket, [buckets].
        edges: of the buckets in ms, rising and above 0, [buckets + 1].
        design_effect: by how much requests of one user resemble each other, see `design_effect`.
    Returns:
        One of each share; none without requests.
    Source: Woodruff 1952: the interval of the share, read off the distribution.
    """
    n = int(counts.sum())
    if n == 0:
        return ()
    below = np.concatenate([[0.0], np.cumsum(counts) / n])

    def at(share: float) -> float:
        # In between as the buckets are: even on a log scale.
        return float(np.exp(np.interp(share, below, np.log(edges))))

    found = []
    for share in shares:
        half = float(norm.isf(LEVEL / 2)) * np.sqrt(design_effect * share * (1 - share) / n)
        found.append(Quantile(share, at(share), Interval(at(max(share - half, 0.0)), at(min(share + half, 1.0)))))
    return tuple(found)


def design_effect(sums: Sums) -> float:
    """Variance of the share of slow requests by variance if requests were independent; at least 1."""
    share = SLOW.of(sums)
    if share is None or not 0 < share < 1 or sums.n < 2:
        return 1.0
    names = (SLOW.numerator, SLOW.denominator)
    variance = sums.aggregates(names).ratio_var(*names) / sums.n
    return max(1.0, float(variance * sums.total(SLOW.denominator) / (share * (1 - share))))


def quantiles_by_variant(
    histograms: Mapping[str, NDArray[np.int64]], edges: NDArray[np.float64], sums: Mapping[str, Sums]
) -> dict[str, tuple[Quantile, ...]]:
    """p50 and p95 of every arm."""
    return {name: latency_quantiles(counts, edges, design_effect(sums[name])) for name, counts in histograms.items()}
