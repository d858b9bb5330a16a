"""Test and validation events -> ranks of their targets, by every model that is compared: full ranking over a domain.

Each event is scored in its true context: everything that its user did before it, as the service would see it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from formats.history import encode_histories, known_window
from model.syncrec import SyNCRec
from training.cases import Cases
from training.metrics import Ranks, mid_ranks

Ints = NDArray[np.int64]
Histories = list[NDArray[np.int32]]
# Some cases and a domain (0-based) -> scores of that domain's items, [cases, items of the domain]. Of a case a scorer may
# read what was known when it happened: the user's earlier events and the time, never the target.
Scorer = Callable[[Cases, int], NDArray[np.float32]]

CASES_PER_BATCH = 256


@dataclass(frozen=True)
class Catalogue:
    """Sizes of the domains and the training popularity of every item, [items + 1] (0 for padding)."""

    items_per_domain: tuple[int, ...]
    popularity: NDArray[np.float32]

    def columns(self, domain: int) -> slice:
        """Item indices of a domain."""
        first = 1 + sum(self.items_per_domain[:domain])
        return slice(first, first + self.items_per_domain[domain])

    def popular(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """The scorer that knows nothing of the user."""
        return np.tile(self.popularity[self.columns(domain)], (len(cases), 1))


def cross_scorer(network: SyNCRec, catalogue: Catalogue, max_history: int) -> Scorer:
    """CDSR: reads the newest events of all domains."""

    def score(cases: Cases, domain: int) -> NDArray[np.float32]:
        encoded = encode_histories(cases.histories(), max_history, network.items)
        return _product(network, network.cross_next(_trimmed(encoded)), catalogue.columns(domain))

    return torch.inference_mode()(score)


def single_scorer(network: SyNCRec, catalogue: Catalogue, max_history: int) -> Scorer:
    """SDSR: reads, of the same window, the target's domain alone."""

    def score(cases: Cases, domain: int) -> NDArray[np.float32]:
        columns = catalogue.columns(domain)
        windows = (known_window(history, max_history) for history in cases.histories())
        own = [window[(window >= columns.start) & (window < columns.stop)] for window in windows]
        encoded = encode_histories(own, max_history, network.items)
        return _product(network, network.single_next(_trimmed(encoded), domain), columns)

    return torch.inference_mode()(score)


def _trimmed(encoded: NDArray[np.int32]) -> torch.Tensor:
    """Without the slots that are padding in every row; padding changes nothing, but costs."""
    return torch.from_numpy(encoded[:, int(np.argmax(encoded.any(0))) :])


def _product(network: SyNCRec, users: torch.Tensor, columns: slice) -> NDArray[np.float32]:
    scores: NDArray[np.float32] = (users @ network.item_vectors()[columns].T).numpy()
    return scores


@dataclass(frozen=True)
class Scored:
    """Some cases of one domain and what a scorer gives their candidates.

    which: numbers of the cases, [batch].
    domain: of the targets, 0-based.
    first_item: item index of the first candidate; the others follow.
    scores: -inf where an item is no candidate, [batch, candidates].
    target: column of each target, [batch].
    stood_in: where popularity answered instead of the scorer, [batch].
    """

    which: Ints
    domain: int
    first_item: int
    scores: NDArray[np.float32]
    target: Ints
    stood_in: NDArray[np.bool_]


def scored(
    cases: Cases, scorer: Scorer, catalogue: Catalogue, exclude_seen: bool, whole_catalogue: bool = False
) -> Iterator[Scored]:
    """Scores of all cases whose target is known, a batch at a time.

    A user without known events is scored by popularity, as the service answers.

    Args:
        cases: what to score.
        scorer: histories -> scores.
        catalogue: of the training data.
        exclude_seen: leave out what the user has had before (but never the target).
        whole_catalogue: the candidates are the items of all domains, with each domain's scores as they are; otherwise those of
            the target's domain.
    """
    for which, domain in _batches(cases):
        batch = cases.take(which)
        histories = batch.histories()
        domains = range(len(catalogue.items_per_domain)) if whole_catalogue else range(domain, domain + 1)
        columns = slice(catalogue.columns(domains[0]).start, catalogue.columns(domains[-1]).stop)
        stood_in = np.array([not history.any() for history in histories])
        scores = np.empty((len(which), columns.stop - columns.start), dtype=np.float32)
        for chosen, score in ((~stood_in, scorer), (stood_in, catalogue.popular)):
            if chosen.any():
                _fill(scores, chosen, batch, score, {number: catalogue.columns(number) for number in domains})
        target = batch.target.astype(np.int64) - columns.start
        if exclude_seen:
            _exclude_seen(scores, histories, target, columns)
        yield Scored(which, domain, columns.start, scores, target, stood_in)


def rank_cases(cases: Cases, scorer: Scorer, catalogue: Catalogue, exclude_seen: bool) -> Ranks:
    """Rank of every case's target in its domain, [cases]; infinity where it is cold (not in the catalogue)."""
    ranks = np.full(len(cases), np.inf)
    for batch in scored(cases, scorer, catalogue, exclude_seen):
        ranks[batch.which] = mid_ranks(batch.scores, batch.target)
    return ranks


def _batches(cases: Cases) -> Iterator[tuple[Ints, int]]:
    """Cases with a known target, a batch per domain at a time, and the domain, 0-based."""
    target, target_domain, length = cases.target, cases.target_domain, cases.position - cases.start
    for domain in np.unique(target_domain):
        known = np.flatnonzero((target_domain == domain) & (target > 0))
        known = known[np.argsort(length[known], kind="stable")]  # short histories together: less padding
        for first in range(0, len(known), CASES_PER_BATCH):
            yield known[first : first + CASES_PER_BATCH], int(domain) - 1


def _fill(
    scores: NDArray[np.float32], chosen: NDArray[np.bool_], batch: Cases, score: Scorer, columns: dict[int, slice]
) -> None:
    """Put the scores of the chosen cases and of the domains' items, which stand in this order, into their places."""
    some, first = batch.take(np.flatnonzero(chosen)), columns[min(columns)].start
    for domain, own in columns.items():
        scores[chosen, own.start - first : own.stop - first] = score(some, domain)


def _exclude_seen(scores: NDArray[np.float32], histories: Histories, target: Ints, columns: slice) -> None:
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    seen = np.concatenate(histories).astype(np.int64)
    here = (seen >= columns.start) & (seen < columns.stop)
    own = scores[np.arange(len(target)), target]
    scores[rows[here], seen[here] - columns.start] = -np.inf
    scores[np.arange(len(target)), target] = own


def drawn_candidates(
    scores: NDArray[np.float32], target: Ints, drawn: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """The scores of the target and of so many other candidates, drawn uniformly; -inf elsewhere, [batch, candidates].

    The same generator state draws the same candidates, whatever their scores.
    """
    lottery = np.where(np.isneginf(scores), 2.0, random.random(scores.shape))
    lottery[np.arange(len(target)), target] = -1.0
    if drawn + 1 >= scores.shape[1]:
        return scores
    bound = np.partition(lottery, drawn, axis=1)[:, drawn]  # the target and the `drawn` lowest
    return np.where(lottery > bound[:, None], np.float32(-np.inf), scores)
