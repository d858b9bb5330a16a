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


def rank_cases(
    cases: Cases, scorer: Scorer, catalogue: Catalogue, exclude_seen: bool, sampled: int | None = None
) -> tuple[Ranks, NDArray[np.bool_]]:
    """Rank of every case's target.

    A cold target (not in the catalogue) has rank infinity. A user without known events is ranked by popularity, as the
    service answers.

    Args:
        cases: what to score.
        scorer: histories -> scores.
        catalogue: of the training data.
        exclude_seen: leave out what the user has had before (but never the target).
        sampled: rank among so many drawn candidates instead of all; the same draw for every scorer.
    Returns:
        ranks, and where popularity stood in, [cases] each.
    """
    ranks = np.full(len(cases), np.inf)
    stood_in = np.zeros(len(cases), dtype=np.bool_)
    random = np.random.default_rng(0)
    targets = cases.target
    for which, domain in _batches(cases):
        batch = cases.take(which)
        histories = batch.histories()
        known = np.array([bool(history.any()) for history in histories])
        columns = catalogue.columns(domain)
        scores = np.empty((len(which), columns.stop - columns.start), dtype=np.float32)
        for chosen, score in ((known, scorer), (~known, catalogue.popular)):
            if chosen.any():
                rows = np.flatnonzero(chosen)
                scores[rows] = score(batch.take(rows), domain)
        target = targets[which].astype(np.int64) - columns.start
        if exclude_seen:
            _exclude_seen(scores, histories, target, columns)
        if sampled is not None:
            _keep_sample(scores, target, sampled, random)
        ranks[which] = mid_ranks(scores, target)
        stood_in[which] = ~known
    return ranks, stood_in


def _batches(cases: Cases) -> Iterator[tuple[Ints, int]]:
    """Cases with a known target, a batch per domain at a time, and the domain, 0-based."""
    target, target_domain, length = cases.target, cases.target_domain, cases.position - cases.start
    for domain in np.unique(target_domain):
        known = np.flatnonzero((target_domain == domain) & (target > 0))
        known = known[np.argsort(length[known], kind="stable")]  # short histories together: less padding
        for first in range(0, len(known), CASES_PER_BATCH):
            yield known[first : first + CASES_PER_BATCH], int(domain) - 1


def _exclude_seen(scores: NDArray[np.float32], histories: Histories, target: Ints, columns: slice) -> None:
    rows = np.repeat(np.arange(len(histories)), [len(history) for history in histories])
    seen = np.concatenate(histories).astype(np.int64)
    here = (seen >= columns.start) & (seen < columns.stop)
    own = scores[np.arange(len(target)), target]
    scores[rows[here], seen[here] - columns.start] = -np.inf
    scores[np.arange(len(target)), target] = own


def _keep_sample(scores: NDArray[np.float32], target: Ints, sampled: int, random: np.random.Generator) -> None:
    own = scores[np.arange(len(target)), target]
    lottery = np.where(np.isneginf(scores), 2.0, random.random(scores.shape))
    lottery[np.arange(len(target)), target] = -1.0
    if sampled + 1 < scores.shape[1]:
        bound = np.partition(lottery, sampled, axis=1)[:, sampled]  # the target and the `sampled` lowest draws
        scores[lottery > bound[:, None]] = -np.inf
    scores[np.arange(len(target)), target] = own
