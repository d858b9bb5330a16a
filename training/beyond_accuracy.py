"""What lists of recommendations are like besides right or wrong: how much of a domain they show, how popular, how varied.

All measures are of the lists of one domain; formulas as in Castells, Hurley and Vargas (2015, "Novelty and diversity in
recommender systems") unless said. A list holds item indices, best first, 0 where there was no candidate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Lists = NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ListsOfDomain:
    """What the lists of one domain are compared with.

    columns: item indices of the domain.
    popularity: training events, above 0 for the items of the domain and 0 for all others, [items + 1].
    category: a number for each item, 0 where it has none, [items + 1]; None if no item has any.
    histories: item indices of all domains that the user of each list had, [lists].
    """

    columns: slice
    popularity: Floats
    category: NDArray[np.int64] | None
    histories: list[NDArray[np.int32]]

    def measures(self, lists: Lists) -> dict[str, float | None]:
        """All measures of one scorer's lists, [lists, places], at least one; None where there is nothing to measure."""
        times_shown = shown(lists, self.columns)
        return {
            "coverage": coverage(times_shown),
            "gini": gini(times_shown),
            "novelty": novelty(lists, self.popularity),
            "popularity_lift": popularity_lift(lists, self.histories, self.popularity),
            "diversity": None if self.category is None else diversity(lists, self.category),
        }


def shown(lists: Lists, columns: slice) -> NDArray[np.int64]:
    """How often the lists show each item of the domain, [items of the domain]."""
    places = lists[lists > 0] - columns.start
    return np.bincount(places, minlength=columns.stop - columns.start)


def coverage(times_shown: NDArray[np.int64]) -> float:
    """Share of the domain's items that are in any list."""
    return float(np.mean(times_shown > 0))


def gini(times_shown: NDArray[np.int64]) -> float:
    """Gini index of how often items are shown: 0 if all equally often, (n - 1) / n if one alone.

    With x rising: sum of (2 i - n - 1) x_i, over n · sum of x; i from 1 to n.
    """
    n = len(times_shown)
    weight = 2 * np.arange(1, n + 1) - n - 1
    return float(weight @ np.sort(times_shown) / (n * times_shown.sum()))


def novelty(lists: Lists, popularity: Floats) -> float:
    """Mean over the places of -log2(share of the domain's training events that the item has), in bits (Zhou et al. 2010).

    Args:
        lists: [cases, places].
        popularity: training events, above 0 for the items of this domain and 0 for all others, [items + 1].
    """
    return float(-np.log2(popularity[lists[lists > 0]] / popularity.sum()).mean())


def popularity_lift(lists: Lists, histories: list[NDArray[np.int32]], popularity: Floats) -> float | None:
    """How much more popular the lists are than what their users had chosen themselves in the domain.

    Mean over cases of the mean popularity of a list, over the same of the histories (Abdollahpouri et al. 2020 subtract 1):
    1 is as popular, 2 twice as popular. A case without a known event in the domain counts in neither.

    Args:
        lists: [cases, places].
        histories: item indices of all domains, of each case.
        popularity: as in `novelty`.
    Returns:
        None if no case counts.
    """
    of_histories = _means([popularity[history] for history in histories])
    of_lists = _means(list(popularity[lists]))
    count = ~np.isnan(of_histories) & ~np.isnan(of_lists)
    return float(of_lists[count].mean() / of_histories[count].mean()) if count.any() else None


def _means(popularities: list[Floats]) -> Floats:
    """Mean of what is above 0 of each, NaN of nothing, [cases]."""
    case = np.repeat(np.arange(len(popularities)), [len(row) for row in popularities])
    flat = np.concatenate([np.zeros(0), *popularities])
    count = np.bincount(case[flat > 0], minlength=len(popularities))
    total = np.bincount(case, weights=flat, minlength=len(popularities))
    means = np.full(len(popularities), np.nan)
    np.divide(total, count, out=means, where=count > 0)
    return means


def diversity(lists: Lists, category: NDArray[np.int64]) -> float | None:
    """Intra-list diversity: mean over lists of the share of a list's pairs whose categories differ (Ziegler et al. 2005).

    Args:
        lists: [cases, places].
        category: a number for each, 0 where an item has none; such an item makes no pair, [items + 1].
    Returns:
        None if no list has a pair.
    """
    of_place = category[lists]
    one, other = np.triu_indices(lists.shape[1], k=1)
    pairs = (of_place[:, one] > 0) & (of_place[:, other] > 0)
    differ = pairs & (of_place[:, one] != of_place[:, other])
    count = pairs.sum(axis=1)
    return float((differ.sum(axis=1)[count > 0] / count[count > 0]).mean()) if count.any() else None
