"""Run -> HR, NDCG and MRR per domain of everything that it can rank by, beside popularity; and what the lists are like."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.mixed_ranker import CROSS, SINGLE
from training.answers import Answers, answer
from training.beyond_accuracy import ListsOfDomain
from training.calibration import ScoreKind, expected_calibration_error
from training.case_table import case_table
from training.cases import Cases, contexts
from training.dataset import Dataset
from training.memory import bounded_memory
from training.metrics import METRICS, Ranks, ndcg_at_k
from training.objective import Objective
from training.ranking import Catalogue, rank_cases
from training.run import TrainedRun
from training.served import MIXED, scorers_of
from training.slices import slices
from training.task import catalogue_of, drawn_cases, drops_repeats

CUT_OFFS = (5, 10, 20)
POPULARITY = "popularity"
RANKINGS = {"domain": "full, in the target's domain", "catalogue": "full, among the items of all domains"}
# What the scores of a scorer are. Those of others, counts and similarities, say nothing of probability.
SCORE_KINDS: dict[str, ScoreKind] = {CROSS: "logits", SINGLE: "logits", MIXED: "shares"}
Values = dict[str, float]
Table = dict[str, Any]


@dataclass(frozen=True)
class Protocol:
    """How an evaluation is done; it stands in its result.

    Attributes:
        part: which events are scored.
        exclude_seen: leave out what the user has had before, as the service does by default.
        max_cases: at most so many events per domain, drawn once, the same for every run of a dataset; None = all.
        sampled: rank the target also among so many drawn candidates, as most papers do. Comparable neither with full ranking
            nor between numbers of candidates (Krichene and Rendle 2020).
        among: the candidates: items of the target's domain, or of all domains.
    """

    part: Literal["validation", "test"] = "test"
    exclude_seen: bool = True
    max_cases: int | None = None
    sampled: int | None = None
    among: Literal["domain", "catalogue"] = "domain"

    def describe(self) -> Table:
        """What the result of an evaluation says of it."""
        return {
            "part": self.part,
            "ranking": RANKINGS[self.among],
            "seen_items": "excluded" if self.exclude_seen else "kept",
            "max_cases": self.max_cases,
        }


@dataclass(frozen=True)
class Evaluation:
    """A part of a dataset, scored: by all that a run can rank by (the first is what it serves) and last by popularity."""

    dataset: Dataset
    catalogue: Catalogue
    protocol: Protocol
    cases: Cases
    answers: dict[str, Answers]

    @property
    def served(self) -> str:
        """The scorer that the run serves."""
        return next(iter(self.answers))

    @property
    def ranks(self) -> dict[str, Ranks]:
        """Of every scorer, [cases]."""
        return {name: answers.ranks for name, answers in self.answers.items()}

    @property
    def of_domain(self) -> dict[str, NDArray[np.bool_]]:
        """Which cases are of each domain, [cases]."""
        domain = self.cases.target_domain
        return {name: domain == number for number, name in enumerate(self.dataset.domains, start=1)}

    def table(self) -> pl.DataFrame:
        """A row for each case; see `training.case_table`."""
        return case_table(self.dataset, self.catalogue, self.cases, self.ranks)


def score_part(trained: TrainedRun, protocol: Protocol) -> Evaluation:
    """Score one part of the run's dataset."""
    dataset, catalogue = trained.dataset, catalogue_of(trained.dataset)
    cases = contexts(dataset, protocol.part)
    # Not the seed of the run: runs are compared on the same cases.
    cases = cases.take(drawn_cases(cases, protocol.max_cases, seed=0))
    whole, sampled = protocol.among == "catalogue", protocol.sampled
    with bounded_memory():
        answers = {
            name: answer(cases, scorer, catalogue, protocol.exclude_seen, whole, sampled, SCORE_KINDS.get(name))
            for name, scorer in {**scorers_of(trained, catalogue), POPULARITY: catalogue.popular}.items()
        }
    return Evaluation(dataset, catalogue, protocol, cases, answers)


def evaluate(trained: TrainedRun, protocol: Protocol) -> Table:
    """Score one part of the run's dataset.

    Returns:
        JSON: per domain, over all events (`overall`) and as mean of the domains (`macro`): n, how many targets are cold
        (in no training event, counted as misses), how many answers are popularity's (no known history), and the metrics of
        every scorer and of `popularity`; per domain also the gap and weight that training ended with. `beyond_accuracy` and
        `slices` by domain, `as_published` where candidates were drawn. See docs/evaluation.md.
    """
    return describe(trained, score_part(trained, protocol))


def describe(trained: TrainedRun, evaluation: Evaluation) -> Table:
    """The JSON of `evaluate`."""
    everything = np.ones(len(evaluation.cases), dtype=np.bool_)
    state = trained.objective.per_domain()
    domains = {
        name: {**_counted(evaluation, which), **{key: values[number] for key, values in state.items()}}
        for number, (name, which) in enumerate(evaluation.of_domain.items())
    }
    return {
        **evaluation.protocol.describe(),
        "checkpoint_epoch": trained.notes["epoch"],
        "served": evaluation.served,
        "domains": domains,
        "overall": _counted(evaluation, everything),
        "macro": _macro(domains.values(), evaluation.answers),
        **_as_published(evaluation),
        **_beyond_accuracy(evaluation),
        "slices": _slices(evaluation),
    }


class Validation:
    """The score that training stops by: macro NDCG@10 of what the network ranks by alone, on the same validation events at every call.

    Macro, so that the largest domain does not decide alone; a domain without validation events does not count.
    """

    def __init__(self, dataset: Dataset, max_cases: int, seed: int) -> None:
        """Draw at most `max_cases` events, evenly over the domains."""
        cases = contexts(dataset, "validation")
        self.cases = cases.take(drawn_cases(cases, -(-max_cases // len(dataset.domains)), seed))
        self.catalogue = catalogue_of(dataset)
        self.exclude_seen = drops_repeats(dataset)

    def score(self, objective: Objective) -> float:
        """NDCG@10, 0 if there are no validation events at all."""
        objective.eval()
        scorer = next(iter(objective.scorers(self.catalogue).values()))
        ranks = rank_cases(self.cases, scorer, self.catalogue, self.exclude_seen)
        domain = self.cases.target_domain
        means = [float(ndcg_at_k(ranks[domain == number], 10).mean()) for number in np.unique(domain)]
        return float(np.mean(means)) if means else 0.0


def _counted(evaluation: Evaluation, which: NDArray[np.bool_]) -> Table:
    stood_in = evaluation.answers[evaluation.served].stood_in
    counts = {
        "n": int(which.sum()),
        "cold": int((evaluation.cases.target[which] == 0).sum()),
        "answered_by_popularity": int(stood_in[which].sum()),
    }
    return {**counts, **_metrics_of(evaluation.ranks, which)}


def _as_published(evaluation: Evaluation) -> Table:
    answers = evaluation.answers.items()
    ranks = {name: found.sampled_ranks for name, found in answers if found.sampled_ranks is not None}
    if not ranks:
        return {}
    domains = {name: _metrics_of(ranks, which) for name, which in evaluation.of_domain.items()}
    return {
        "as_published": {
            "candidates": evaluation.protocol.sampled,
            "domains": domains,
            "overall": _metrics_of(ranks, np.ones(len(evaluation.cases), dtype=np.bool_)),
            "macro": _macro(domains.values(), ranks),
        }
    }


def _beyond_accuracy(evaluation: Evaluation) -> Table:
    if evaluation.protocol.among == "catalogue":  # nobody is shown lists that mix domains
        return {}
    category = _categories(evaluation.dataset)
    scored = evaluation.cases.target > 0
    domains = {
        name: _lists(evaluation, number, np.flatnonzero(which & scored), category)
        for number, (name, which) in enumerate(evaluation.of_domain.items())
    }
    return {"beyond_accuracy": {"domains": domains, "macro": _macro(domains.values(), evaluation.answers)}}


def _lists(evaluation: Evaluation, domain: int, which: NDArray[np.int64], category: NDArray[np.int64] | None) -> Table:
    if not len(which):
        return {"n": 0, **dict.fromkeys(evaluation.answers)}
    columns, popularity = evaluation.catalogue.columns(domain), np.zeros(len(evaluation.catalogue.popularity))
    # `prepare` knows no item without a training event; where there is one, its novelty shall still be a number.
    popularity[columns] = np.maximum(evaluation.catalogue.popularity[columns], 1)
    lists = ListsOfDomain(columns, popularity, category, evaluation.cases.take(which).histories())
    return {
        "n": len(which),
        **{
            name: {
                **lists.measures(answers.first[which]),
                "calibration_error": _calibration_error(answers, which),
            }
            for name, answers in evaluation.answers.items()
        },
    }


def _categories(dataset: Dataset) -> NDArray[np.int64] | None:
    """A number from 1 for the category of every item, 0 where it has none, [items + 1]; None if no item has any."""
    catalogue = dataset.catalogue()
    if "category" not in catalogue.columns or not catalogue["category"].count():
        return None
    numbers = catalogue["category"].rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return np.concatenate([[0], numbers])


def _calibration_error(answers: Answers, which: NDArray[np.int64]) -> float | None:
    own = which[~np.isnan(answers.confidence[which])]
    return expected_calibration_error(answers.confidence[own], answers.right[own]) if len(own) else None


def _slices(evaluation: Evaluation) -> Table:
    table, names = evaluation.table(), list(evaluation.answers)
    domains = {name: slices(table.filter(pl.col("domain") == name), names) for name in evaluation.dataset.domains}
    return {"overall": slices(table, names), "domains": domains}


def _metrics_of(ranks: Mapping[str, Ranks], which: NDArray[np.bool_]) -> dict[str, Values | None]:
    return {name: _metrics(values[which]) for name, values in ranks.items()}


def _metrics(ranks: Ranks) -> Values | None:
    """Means over cases, named `ndcg@10` and so on; None without cases: there is no mean of nothing."""
    if not len(ranks):
        return None
    return {f"{name}@{k}": float(metric(ranks, k).mean()) for name, metric in METRICS.items() for k in CUT_OFFS}


def _macro(domains: Iterable[Table], names: Iterable[str]) -> dict[str, dict[str, float | None] | None]:
    """Mean over the domains that have a value."""
    tables = list(domains)
    found = {name: [table[name] for table in tables if table[name] is not None] for name in names}
    return {
        name: {key: _mean([value[key] for value in values]) for key in values[0]} if values else None
        for name, values in found.items()
    }


def _mean(values: list[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None
