"""Run -> HR, NDCG and MRR per domain, both tasks beside popularity, and the negative-transfer table."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from training.cases import Cases, contexts
from training.dataset import Dataset
from training.memory import bounded_memory
from training.metrics import Ranks, hr_at_k, mrr_at_k, ndcg_at_k
from training.objective import Objective
from training.ranking import Catalogue, rank_cases
from training.run import TrainedRun

CUT_OFFS = (5, 10, 20)
METRICS = {"hr": hr_at_k, "ndcg": ndcg_at_k, "mrr": mrr_at_k}
Part = Literal["validation", "test"]
Values = dict[str, float]


@dataclass(frozen=True)
class Protocol:
    """How an evaluation is done; it stands in its result.

    Attributes:
        part: which events are scored.
        exclude_seen: leave out what the user has had before, as the service does by default.
        max_cases: at most so many events per domain, drawn once; None = all.
        sampled: rank the target among so many drawn candidates of its domain instead of all. Not comparable with full
            ranking, nor between numbers of candidates (Krichene and Rendle 2020).
    """

    part: Part = "test"
    exclude_seen: bool = True
    max_cases: int | None = None
    sampled: int | None = None


def evaluate(trained: TrainedRun, protocol: Protocol) -> dict[str, Any]:
    """Score one part of the run's dataset.

    Returns:
        JSON: per domain, over all events (`overall`) and as mean of the domains (`macro`): n, how many targets are cold
        (in no training event, counted as misses), how many answers are popularity's (no known history), and the metrics of
        `cross`, `single` and `popularity`; per domain also the gap and weight that training ended with.
    """
    dataset, objective = trained.dataset, trained.objective
    cases = contexts(dataset, protocol.part)
    cases = cases.take(_drawn(cases, protocol.max_cases, trained.run.config.seed))
    catalogue = catalogue_of(dataset)
    scorers = {**objective.scorers(catalogue), "popularity": catalogue.popular}
    ranks, stood_in = {}, np.zeros(0, dtype=np.bool_)
    with bounded_memory():
        for name, scorer in scorers.items():
            ranks[name], stood_in = rank_cases(cases, scorer, catalogue, protocol.exclude_seen, protocol.sampled)
    domain = cases.target_domain
    groups = {name: domain == number for number, name in enumerate(dataset.domains, start=1)}
    state = objective.per_domain()
    domains = {
        name: {**_table(cases, ranks, stood_in, which), **{key: values[number] for key, values in state.items()}}
        for number, (name, which) in enumerate(groups.items())
    }
    return {
        "part": protocol.part,
        "ranking": _ranking_name(protocol),
        "seen_items": "excluded" if protocol.exclude_seen else "kept",
        "checkpoint_epoch": trained.notes["epoch"],
        "domains": domains,
        "overall": _table(cases, ranks, stood_in, np.ones(len(cases), dtype=np.bool_)),
        "macro": _macro(domains.values(), scorers),
    }


class Validation:
    """The score that training stops by: macro NDCG@10 of what is served, on the same validation events at every call.

    Macro, so that the largest domain does not decide alone; a domain without validation events does not count.
    """

    def __init__(self, dataset: Dataset, max_cases: int, seed: int) -> None:
        """Draw at most `max_cases` events, evenly over the domains."""
        cases = contexts(dataset, "validation")
        self.cases = cases.take(_drawn(cases, -(-max_cases // len(dataset.domains)), seed))
        self.catalogue = catalogue_of(dataset)
        self.exclude_seen = drops_repeats(dataset)

    def score(self, objective: Objective) -> float:
        """NDCG@10, 0 if there are no validation events at all."""
        objective.eval()
        scorer = next(iter(objective.scorers(self.catalogue).values()))
        ranks, _ = rank_cases(self.cases, scorer, self.catalogue, self.exclude_seen)
        domain = self.cases.target_domain
        means = [float(ndcg_at_k(ranks[domain == number], 10).mean()) for number in np.unique(domain)]
        return float(np.mean(means)) if means else 0.0


def catalogue_of(dataset: Dataset) -> Catalogue:
    """Sizes and popularity of the training catalogue."""
    popularity = dataset.catalogue()["popularity"].to_numpy().astype(np.float32)
    return Catalogue(dataset.items_per_domain, np.concatenate([[np.float32(0)], popularity]))


def drops_repeats(dataset: Dataset) -> bool:
    """Whether the task is the first event of a user with an item; then seen items are no candidates."""
    return bool(dataset.manifest.options["repeats"] == "drop")


def _drawn(cases: Cases, per_domain: int | None, seed: int) -> NDArray[np.int64]:
    if per_domain is None:
        return np.arange(len(cases))
    order = np.random.default_rng((seed, 3)).permutation(len(cases))
    domain = cases.target_domain[order]
    drawn = [order[domain == number][:per_domain] for number in np.unique(domain)]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *drawn]))


def _table(
    cases: Cases, ranks: dict[str, Ranks], stood_in: NDArray[np.bool_], which: NDArray[np.bool_]
) -> dict[str, Any]:
    counts = {
        "n": int(which.sum()),
        "cold": int((cases.target[which] == 0).sum()),
        "answered_by_popularity": int(stood_in[which].sum()),
    }
    return {**counts, **{name: _metrics(values[which]) for name, values in ranks.items()}}


def _metrics(ranks: Ranks) -> Values | None:
    """Means over cases, named `ndcg@10` and so on; None without cases: there is no mean of nothing."""
    if not len(ranks):
        return None
    return {f"{name}@{k}": float(metric(ranks, k).mean()) for name, metric in METRICS.items() for k in CUT_OFFS}


def _macro(domains: Iterable[dict[str, Any]], names: Iterable[str]) -> dict[str, Values | None]:
    tables = list(domains)
    found = {name: [table[name] for table in tables if table[name] is not None] for name in names}
    return {
        name: {key: float(np.mean([value[key] for value in values])) for key in values[0]} if values else None
        for name, values in found.items()
    }


def _ranking_name(protocol: Protocol) -> str:
    if protocol.sampled is None:
        return "full, in the target's domain"
    return f"sampled, 1 + {protocol.sampled} of the target's domain (not comparable with full ranking)"
