"""The members of the served mixture, as scorers of shares: both towers, recent popularity and item kNN."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import softmax

from formats.bundle import recent_column
from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, SINGLE, Weights
from model.neighbours import Neighbours
from training.cases import Cases
from training.dataset import Dataset
from training.memory_based.decay import PlaceDecay, TimeDecay
from training.memory_based.groups import place_in_group
from training.memory_based.item_knn import ItemKnn, ItemKnnConfig, fit_item_knn
from training.memory_based.newest_events import newest_events
from training.memory_based.recent_popularity import RecentPopularity, RecentPopularityConfig, fit_recent_popularity
from training.ranking import Scorer

# Days in which an event loses half its weight: what is popular this week, this fortnight, this season.
HALF_LIVES: Final = (4.0, 14.0, 60.0)
# Few neighbours: the table is a constant of the graph, and 20, 50 and 300 of them mixed equally well on both sets' validation.
KNN_NEIGHBOURS: Final = 20
KNN_PAIRS: Final = TimeDecay(half_life_days=30, floor=0.02)
KNN_HISTORY: Final = PlaceDecay(0.9)
# By validation: mixed, 0.25 against 0.5 gave .0382 against .0391 on amazon4 and .0863 against .0826 on grocery.
KNN_DAMPING: Final = 0.25


RECENT: Final = tuple(map(recent_column, HALF_LIVES))
NAMES: Final = (CROSS, SINGLE, *RECENT, NEIGHBOURS, OWN_NEIGHBOURS)


@dataclass(frozen=True)
class Members:
    """What the mixture is made of, besides the network.

    recent: by name.
    knn: item kNN over all domains, on the window that the network reads.
    """

    recent: Mapping[str, RecentPopularity]
    knn: ItemKnn

    def recent_counts(self, day: int) -> NDArray[np.float32]:
        """Decayed counts of every item before a UTC day, [half-lives, items + 2]."""
        domains = range(len(self.knn.columns))
        counts = [np.concatenate([one.on_days(np.array([day]), d)[0] for d in domains]) for one in self.recent.values()]
        return np.pad(np.stack(counts), ((0, 0), (1, 1)))

    def neighbours(self, weights: Sequence[Weights]) -> Neighbours | None:
        """Item kNN as tensors, for a mixture of these weights per domain; None if no domain gives it any."""
        of_all, of_own = ([one.get(name, 0.0) for one in weights] for name in (NEIGHBOURS, OWN_NEIGHBOURS))
        used = np.flatnonzero(np.add(of_all, of_own)).tolist()
        if not used:
            return None
        sizes = [columns.stop - columns.start for columns in self.knn.columns]
        item_domain = np.pad(np.repeat(np.arange(1, len(sizes) + 1), sizes), 1)
        domains = [number + 1 for number in used]
        item, weight = _by_domain(*self.knn.table(), item_domain, domains)
        return Neighbours(
            torch.from_numpy(item),
            torch.from_numpy(weight),
            torch.from_numpy(item_domain),
            KNN_HISTORY.factor,
            domains,
            [of_all[number] for number in used],
            [of_own[number] for number in used],
        )

    def _own(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """Item kNN from the events of the domain alone, within the same window."""
        columns = self.knn.columns
        window = newest_events(cases, slice(1, columns[-1].stop), self.knn.config.history)
        row = np.repeat(np.arange(len(cases)), np.diff(window.offsets))
        own = (window.item_index >= columns[domain].start) & (window.item_index < columns[domain].stop)
        row, item = row[own], window.item_index[own]
        weights = (KNN_HISTORY.factor ** place_in_group(row)).astype(np.float32)
        histories = csr_array((weights, (row, item)), shape=(len(cases), columns[-1].stop))
        scores: NDArray[np.float32] = (histories @ self.knn.weights[domain]).toarray()
        return scores

    def scorers(self, network: Mapping[str, Scorer]) -> dict[str, Scorer]:
        """Shares by every member, in the order of NAMES.

        Args:
            network: the scorers of CDSR and SDSR, whose scores are log-probabilities up to a constant.
        """
        counts = {
            **{name: one.scorer for name, one in self.recent.items()},
            NEIGHBOURS: self.knn.scorer,
            OWN_NEIGHBOURS: self._own,
        }
        return {
            **{name: shares_of_logits(network[name]) for name in (CROSS, SINGLE)},
            **{name: _of_counts(scorer) for name, scorer in counts.items()},
        }


def fit_members(dataset: Dataset, max_history: int) -> Members:
    """Count what the members count in a dataset."""
    recent = {
        name: fit_recent_popularity(dataset, RecentPopularityConfig(half_life_days=days))
        for name, days in zip(RECENT, HALF_LIVES, strict=True)
    }
    config = ItemKnnConfig(KNN_NEIGHBOURS, KNN_PAIRS, KNN_HISTORY, KNN_DAMPING, max_history, cross_domain=True)
    return Members(recent, fit_item_knn(dataset, config))


def shares_of_logits(scorer: Scorer) -> Scorer:
    """A scorer of log-probabilities, each up to a constant of the case, as one of shares: softmax over the domain."""

    def score(cases: Cases, domain: int) -> NDArray[np.float32]:
        return softmax(scorer(cases, domain), axis=1)  # type: ignore[no-any-return]

    return score


def _of_counts(scorer: Scorer) -> Scorer:
    def score(cases: Cases, domain: int) -> NDArray[np.float32]:
        counts = scorer(cases, domain)
        shares: NDArray[np.float32] = counts / np.maximum(counts.sum(1, keepdims=True), np.finfo(np.float32).tiny)
        return shares

    return score


def _by_domain(
    item: NDArray[np.int32], weight: NDArray[np.float32], item_domain: NDArray[np.int64], domains: Sequence[int]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """A table of neighbours (`ItemKnn.table`) by their domains, [items + 1, domain, most neighbours in a domain] each."""
    of_domain = [item_domain[item] == domain for domain in domains]
    most = max(1, *(int(here.sum(axis=1).max()) for here in of_domain))
    items = np.zeros((len(item), len(domains), most), dtype=np.int32)
    weights = np.zeros(items.shape, dtype=np.float32)
    for number, here in enumerate(of_domain):
        row = np.nonzero(here)[0]
        places = row, number, place_in_group(row)
        items[places], weights[places] = item[here], weight[here]
    return items, weights
