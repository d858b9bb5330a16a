"""Scorers against the truth: what each event costs them, and what it would cost on average over all that may happen.

A user in the same place of the same world could have chosen otherwise. The expectation over the exact probabilities leaves that luck
out, which is most of what differs between two scorers of noise.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import log_softmax
from scipy.stats import rankdata

from formats.files import replace_file
from training.baselines.next_item import NextItemObjective
from training.baselines.per_domain import PerDomainObjective
from training.cases import Cases
from training.domain_view import one_domain
from training.metrics import ndcg_at_k
from training.ranking import Scorer
from training.run import TrainedRun
from training.studies.known_worlds import KnownWorld
from training.task import catalogue_of

_BATCH: Final = 2048
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def judged(known: KnownWorld, cases: Cases, logits: Mapping[str, Scorer], shares: Mapping[str, Scorer]) -> pl.DataFrame:
    """A row for each case, in order.

    Args:
        known: the world that the cases are of.
        cases: all with known targets.
        logits: scorers whose softmax is their probability of an item.
        shares: scorers that only rank.
    Returns:
        user; domain, 0-based; floor: expected NLL of the exact probabilities. Of every scorer S, S_ndcg: expected NDCG@10, and of
        those of logits also S_nll: expected NLL, and S_seen: NLL of what happened. All NLL in nats, over the target's domain.
    """
    table = {"floor": np.empty(len(cases))}
    table |= {f"{name}_{what}": np.empty(len(cases)) for name in logits for what in ("nll", "seen", "ndcg")}
    table |= {f"{name}_ndcg": np.empty(len(cases)) for name in shares}
    for which, domain in _batches(cases):
        batch = cases.take(which)
        exact = known.probabilities(batch, domain)
        target = batch.target - known.dataset.first_item(domain + 1)
        table["floor"][which] = -(exact * np.log(np.maximum(exact, np.finfo(float).tiny))).sum(1)
        for name, scorer in {**logits, **shares}.items():
            scores = scorer(batch, domain).astype(np.float64)
            ranks = rankdata(-scores, axis=1)  # equal ones share the middle of their places
            table[f"{name}_ndcg"][which] = (exact * ndcg_at_k(ranks, 10)).sum(1)
            if name in logits:
                cost = -log_softmax(scores, axis=1)
                table[f"{name}_nll"][which] = (exact * cost).sum(1)
                table[f"{name}_seen"][which] = cost[np.arange(len(which)), target]
    return pl.DataFrame({"user": cases.user, "domain": cases.target_domain.astype(np.int64) - 1, **table})


def kept(file: Path, make: Callable[[], pl.DataFrame]) -> pl.DataFrame:
    """A table that is made once and kept in a Parquet file."""
    if not file.exists():
        content = BytesIO()
        make().write_parquet(content)
        replace_file(file, content.getbuffer())
    return pl.read_parquet(file)


def seen_nll(scorer: Scorer, cases: Cases, first_items: Ints) -> Floats:
    """NLL of what happened, without any truth, [cases].

    Args:
        scorer: of logits.
        cases: all with known targets.
        first_items: the first item_index of each domain, [domains].
    """
    found = np.empty(len(cases))
    for which, domain in _batches(cases):
        batch = cases.take(which)
        cost = -log_softmax(scorer(batch, domain).astype(np.float64), axis=1)
        found[which] = cost[np.arange(len(which)), batch.target - first_items[domain]]
    return found


def single_scorer(singles: TrainedRun) -> Scorer:
    """The networks of a run that trains every domain alone, as one scorer of logits.

    Unlike what such a run serves, a network answers users without an event of its domain, too, from SOS: as it was trained to, and
    as the networks of all domains do.
    """
    dataset = singles.dataset
    views = [one_domain(dataset, number) for number in range(1, len(dataset.domains) + 1)]
    scorers = [part.scorers(catalogue_of(view))["cross"] for part, view in zip(_networks(singles), views, strict=True)]

    def score(cases: Cases, domain: int) -> NDArray[np.float32]:
        own = cases.item_index - (dataset.first_item(domain + 1) - 1)
        inside = (own >= 1) & (own <= dataset.items_per_domain[domain])
        return scorers[domain](replace(cases, item_index=np.where(inside, own, 0)), 0)

    return score


def _networks(singles: TrainedRun) -> list[NextItemObjective]:
    assert isinstance(singles.objective, PerDomainObjective)
    return [part for part in singles.objective.parts if isinstance(part, NextItemObjective)]


def _batches(cases: Cases) -> Iterator[tuple[Ints, int]]:
    """Numbers of cases of one domain, and the domain, 0-based."""
    for domain in np.unique(cases.target_domain):
        own = np.flatnonzero(cases.target_domain == domain)
        for first in range(0, len(own), _BATCH):
            yield own[first : first + _BATCH], int(domain) - 1
