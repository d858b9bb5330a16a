"""Is the quality of a run real? Questions whose answers are known beforehand, if nothing leaks and nothing is miscounted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.errors import WorkFailed, WrongUse
from training.altered_cases import of_another_user, reordered_ties, spliced, with_other_future
from training.bootstrap import FEWEST_USERS, Interval, user_bootstrap
from training.cases import Cases, contexts
from training.dataset import Dataset
from training.id_neighbours import id_neighbours
from training.members import HALF_LIVES
from training.memory import bounded_memory
from training.memory_based.newest_events import MICROSECONDS_PER_DAY
from training.memory_based.recent_popularity import RecentPopularityConfig, fit_recent_popularity
from training.metrics import Ranks, hr_at_k, ndcg_at_k
from training.ranking import Catalogue, Scorer, rank_cases, scored
from training.run import TrainedRun
from training.served import scorers_of
from training.task import catalogue_of, drawn_cases, drops_repeats

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

K: Final = 10
# A true 0 is farther off in one of 370 audits.
STANDARD_ERRORS: Final = 3.0
# So much of what a model gains over popularity may stay when it reads somebody else's history: that, too, tells what goes with
# what these days.
STAYS: Final = 0.25
# Of each domain: enough to see whether a scorer reads the date.
DATED_CASES: Final = 50
YEAR: Final = 365 * MICROSECONDS_PER_DAY
TOO_FEW: Final = f"fewer than {FEWEST_USERS} users have test events of known items after known events: too few to audit"
_DRAWS: Final = 2000


@dataclass(frozen=True)
class Verdict:
    """The answer to one question.

    name: of the question.
    meaning: of the value.
    value, bound: it passes where the value is not above the bound.
    figures: what they were made of.
    """

    name: str
    meaning: str
    value: float
    bound: float
    figures: dict[str, float]

    @property
    def passed(self) -> bool:
        """Whether the answer is as it must be."""
        return self.value <= self.bound


@dataclass(frozen=True)
class Audited:
    """What is audited: a scorer, and the cases that it is asked.

    popularities: scorers that read nothing of the user; of these days, too, if the audited one knows what day it is.
    cases: their targets are known, and so is something of their histories.
    retied: the same cases with another order of ties.
    item_ids: of the catalogue, in order of item_index, which starts at 1.
    """

    scorer: Scorer
    popularities: Sequence[Scorer]
    catalogue: Catalogue
    exclude_seen: bool
    cases: Cases
    retied: Cases
    item_ids: pl.Series

    @cached_property
    def quality(self) -> Floats:
        """NDCG@10 of the cases as they are, [cases]."""
        return self.ndcg(self.cases, self.scorer)

    def ndcg(self, cases: Cases, scorer: Scorer) -> Floats:
        """NDCG@10, [cases]."""
        return ndcg_at_k(self.ranks(cases, scorer), K)

    def ranks(self, cases: Cases, scorer: Scorer) -> Ranks:
        """Of the targets, [cases]."""
        return rank_cases(cases, scorer, self.catalogue, self.exclude_seen)

    def candidates(self) -> Ints:
        """How many items each target is ranked among, itself included, [cases]."""
        found = np.zeros(len(self.cases), dtype=np.int64)
        for batch in scored(self.cases, self.catalogue.popular, self.catalogue, self.exclude_seen):
            found[batch.which] = np.count_nonzero(~np.isneginf(batch.scores), axis=1)
        return found


def audit(trained: TrainedRun, max_cases: int, scorer: str | None = None) -> list[Verdict]:
    """Ask everything.

    Args:
        trained: the run.
        max_cases: at most so many test events of each domain.
        scorer: one of those that the run can rank by; None: what it serves.
    Raises:
        WrongUse: there is no such scorer.
        WorkFailed: there are too few users to tell anything.
    """
    subject = audited(trained, max_cases, scorer)
    random = np.random.default_rng(0)
    with bounded_memory():
        return [
            shuffled_histories(subject, random),
            shuffled_targets(subject, random),
            changed_future(subject, random),
            id_order(subject),
            other_ties(subject),
            equal_scores(subject),
            random_scores(subject, random),
        ]


def audited(trained: TrainedRun, max_cases: int, name: str | None = None) -> Audited:
    """A scorer of a run, and the cases that it is asked; see `audit`."""
    dataset, catalogue = trained.dataset, catalogue_of(trained.dataset)
    scorers = scorers_of(trained, catalogue)
    if name is not None and name not in scorers:
        raise WrongUse(f"{trained.run.path}: ranks by {', '.join(scorers)}, not by {name}")
    scorer = scorers[name or next(iter(scorers))]
    everything = contexts(dataset, "test")
    asked = np.flatnonzero((everything.target > 0) & _has_history(everything))
    which = asked[drawn_cases(everything.take(asked), max_cases, seed=0)]
    cases = everything.take(which)
    if len(np.unique(cases.user)) < FEWEST_USERS:
        raise WorkFailed(TOO_FEW)
    return Audited(
        scorer=scorer,
        popularities=[catalogue.popular, *(_recent_popularities(dataset) if reads_the_date(scorer, cases) else [])],
        catalogue=catalogue,
        exclude_seen=drops_repeats(dataset),
        cases=cases,
        retied=reordered_ties(everything, np.random.default_rng(0)).take(which),
        item_ids=dataset.catalogue()["item_id"],
    )


def reads_the_date(scorer: Scorer, cases: Cases) -> bool:
    """Whether a scorer scores otherwise what happened, all of it, so much earlier."""
    some = cases.take(drawn_cases(cases, DATED_CASES, seed=0))
    earlier = replace(some, timestamp=some.timestamp - YEAR)
    for domain in np.unique(some.target_domain):
        own = np.flatnonzero(some.target_domain == domain)
        if not np.array_equal(scorer(some.take(own), int(domain) - 1), scorer(earlier.take(own), int(domain) - 1)):
            return True
    return False


def _recent_popularities(dataset: Dataset) -> list[Scorer]:
    configs = [RecentPopularityConfig(half_life_days=days) for days in HALF_LIVES]
    return [fit_recent_popularity(dataset, config).scorer for config in configs]


def shuffled_histories(subject: Audited, random: np.random.Generator) -> Verdict:
    """Everybody is served by somebody else's history: who sees nothing of the target falls to popularity."""
    mine, others = of_another_user(subject.cases, random)
    cases = spliced(subject.cases, history_of=others, target_of=mine, time_of=mine)
    return _falls_to_popularity("shuffled histories", subject, cases, subject.cases.user[mine])


def shuffled_targets(subject: Audited, random: np.random.Generator) -> Verdict:
    """The targets of each domain change hands: what is popular stays so, what was personal is lost."""
    mine, others = _of_another_user_in_domain(subject.cases, random)
    cases = spliced(subject.cases, history_of=mine, target_of=others, time_of=mine)
    return _falls_to_popularity("shuffled targets", subject, cases, subject.cases.user[mine])


def changed_future(subject: Audited, random: np.random.Generator) -> Verdict:
    """The target and all later events are others: no score may change, not by a bit."""
    sizes = subject.catalogue.items_per_domain
    item_domain = np.concatenate([[0], np.repeat(np.arange(1, len(sizes) + 1), sizes)])
    cases = with_other_future(subject.cases, item_domain, random)
    changed = 0
    for batch in scored(subject.cases, subject.scorer, subject.catalogue, exclude_seen=False):
        again = subject.scorer(cases.take(batch.which), batch.domain)
        changed += int((again.astype(np.float32) != batch.scores).any(axis=1).sum())
    return Verdict("changed future", "cases with another score", changed, 0, {"cases": len(cases)})


def id_order(subject: Audited) -> Verdict:
    """Who knows only the ids guesses the one after the user's last in the domain, and is often right where ids order ties.

    Neighbours by id can be variants of one product, too. That says something of the items, not of an order, and holds for the
    id before as for the id after. So the id after may be better neither than chance nor than the id before.
    """
    neighbours = id_neighbours(subject.item_ids, subject.catalogue)
    after, before = (
        hr_at_k(subject.ranks(subject.cases, scorer), K) for scorer in (neighbours.after, neighbours.before)
    )
    chance = np.minimum(1, K / subject.candidates())
    expected = before if before.mean() > chance.mean() else chance
    figures = {"after": _mean(after), "before": _mean(before), "chance": _mean(chance)}
    noise = _noise(after - expected, subject.cases.user)
    return Verdict(
        "id order", "HR@10 of the id after, above the id before or chance", _mean(after - expected), noise, figures
    )


def other_ties(subject: Audited) -> Verdict:
    """Events of one user at one time stand in another random order: quality must stay, but for noise."""
    change = subject.ndcg(subject.retied, subject.scorer) - subject.quality
    interval = _interval(change, subject.cases.user)
    figures = {"difference": _mean(change), "low": interval.low, "high": interval.high}
    noise = STANDARD_ERRORS * interval.standard_error
    return Verdict("other order of ties", "NDCG@10 gained or lost", abs(_mean(change)), noise, figures)


def equal_scores(subject: Audited) -> Verdict:
    """Who likes everything equally has every target in the middle, not in the first place."""

    def equal(cases: Cases, domain: int) -> NDArray[np.float32]:
        return np.zeros((len(cases), subject.catalogue.items_per_domain[domain]), dtype=np.float32)

    candidates = subject.candidates()
    elsewhere = int(np.count_nonzero(subject.ranks(subject.cases, equal) != (candidates + 1) / 2))
    return Verdict(
        "equal scores", "targets that are not in the middle", elsewhere, 0, {"candidates": _mean(candidates)}
    )


def random_scores(subject: Audited, random: np.random.Generator) -> Verdict:
    """Who draws lots hits with k of N places in k of N cases."""

    def lots(cases: Cases, domain: int) -> NDArray[np.float32]:
        return random.random((len(cases), subject.catalogue.items_per_domain[domain]), dtype=np.float32)

    hits = hr_at_k(subject.ranks(subject.cases, lots), K)
    chance = np.minimum(1, K / subject.candidates())
    figures = {"hits": _mean(hits), "chance": _mean(chance)}
    # Not from the hits, which may be none: of hits by chance, each with its own probability, the error is known.
    noise = STANDARD_ERRORS * float(np.sqrt((chance * (1 - chance)).sum())) / len(chance)
    return Verdict("random scores", "HR@10 off k / N", abs(_mean(hits - chance)), noise, figures)


def _falls_to_popularity(name: str, subject: Audited, cases: Cases, user: Ints) -> Verdict:
    quality = subject.ndcg(cases, subject.scorer)
    popularity = max((subject.ndcg(cases, scorer) for scorer in subject.popularities), key=_mean)
    own_popularity = max(_mean(subject.ndcg(subject.cases, scorer)) for scorer in subject.popularities)
    stays = STAYS * max(0.0, _mean(subject.quality) - own_popularity)
    figures = {
        "own": _mean(subject.quality),
        "own_popularity": own_popularity,
        "altered": _mean(quality),
        "altered_popularity": _mean(popularity),
    }
    value, noise = quality - popularity, _noise(quality - popularity, user)
    return Verdict(name, "NDCG@10 above popularity", _mean(value), max(stays, noise), figures)


def _of_another_user_in_domain(cases: Cases, random: np.random.Generator) -> tuple[Ints, Ints]:
    """`of_another_user` among the cases of each domain, joined."""
    domain = cases.target_domain
    pairs = []
    for number in np.unique(domain):
        own = np.flatnonzero(domain == number)
        pairs.append([own[which] for which in of_another_user(cases.take(own), random)])
    mine, others = (np.concatenate(numbers) for numbers in zip(*pairs, strict=True))
    return mine, others


def _has_history(cases: Cases) -> NDArray[np.bool_]:
    """Whether anything known happened before, [cases]."""
    known = np.concatenate([[0], np.cumsum(cases.item_index > 0)])
    has: NDArray[np.bool_] = known[cases.position] > known[cases.start]
    return has


def _interval(values: Floats, user: Ints) -> Interval:
    """Of the mean over all cases."""
    means = user_bootstrap(values, user, np.zeros(len(values), dtype=np.int64), 1, _DRAWS)
    if means.macro is None or means.macro.interval is None:
        raise WorkFailed(TOO_FEW)
    return means.macro.interval


def _noise(values: Floats, user: Ints) -> float:
    """What the mean over all cases may be off its true value."""
    return STANDARD_ERRORS * _interval(values, user).standard_error


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean())
