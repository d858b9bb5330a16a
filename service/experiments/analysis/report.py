"""The report of an A/B test, made of sums over users, and what it says to do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.experiments.analysis.bots import bots
from service.experiments.analysis.guardrails import GUARDRAILS, Quantile, quantiles_by_variant
from service.experiments.analysis.lists import Lists, lists
from service.experiments.analysis.multiple import holm
from service.experiments.analysis.novelty import Trend, novelty, trend
from service.experiments.analysis.ranks import ByRank, RankCounts, by_rank
from service.experiments.analysis.ratio import (
    CLICKS_PER_REQUEST,
    CTR,
    IMPRESSIONS_PER_USER,
    LEVEL,
    Effect,
    adjusted,
    compare,
    estimate,
    variance_cut,
)
from service.experiments.analysis.sequential import Look, daily_look, open_look
from service.experiments.analysis.sums import Sums
from service.experiments.analysis.users import Users
from service.experiments.analysis.warnings import (
    AnyFinding,
    guardrail_worse,
    imbalance,
    sample_ratio,
    unequal_lists,
)

# Users of Mondays are not those of Sundays: nobody wins before a week is full. Harm may be ended on any day.
FEWEST_DAYS: Final = 7
# Users at which the intervals of a test without an end are narrowest for their kind.
EXPECTED_USERS: Final = 5000
# Items of the overlap of what the arms show most.
OVERLAP_K: Final = 100

Action = Literal["ship", "roll_back", "wait", "no_difference", "too_few_users", "nothing_to_compare", "not_trusted"]


@dataclass(frozen=True)
class Subject:
    """What was planned, and when it is now (all UTC).

    variants: control first. weights: of their users. minimum_effect: relative. planned_end: None for an open-ended test.
    """

    key: str
    hypothesis: str
    variants: tuple[str, ...]
    weights: Mapping[str, float]
    minimum_effect: float
    started_at: datetime
    planned_end: datetime | None
    as_of: datetime

    def look(self, users: int) -> Look:
        """This look, with the level that it leaves to each of the treatments."""
        level = LEVEL / (len(self.variants) - 1)
        day = (self.as_of - self.started_at) // timedelta(days=1)
        if self.planned_end is None:
            return open_look(day, users, EXPECTED_USERS, level)
        return daily_look(day, max(round((self.planned_end - self.started_at) / timedelta(days=1)), 1), level)


@dataclass(frozen=True, eq=False)
class Observed:
    """What was seen of its users; what is not there is not in the report.

    users: all domains together, with the columns users (1 each), requests, impressions, clicks, pre_requests,
        pre_impressions, pre_clicks and the numerators of `GUARDRAILS`.
    domains: the same of each domain; users, impressions, clicks (and their past) are enough.
    offline_lifts: relative lift of NDCG offline, by variant and domain.
    by_exposure_day: sums with the columns of `novelty.columns` for each of `exposure_days`, by variant.
    ranks: by domain and variant. items_shown: how often each item of the catalogue was shown, by variant, [items].
    latency: histogram of each variant, [buckets]; latency_edges in ms, [buckets + 1].
    findings: those that the log alone shows: rows that were lost, doubled, late, mixed up.
    """

    users: Users
    domains: Mapping[str, Users] = field(default_factory=dict)
    offline_lifts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_exposure_day: Mapping[str, Sums] = field(default_factory=dict)
    exposure_days: tuple[int, ...] = ()
    ranks: Mapping[str, Mapping[str, RankCounts]] = field(default_factory=dict)
    items_shown: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    latency: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    latency_edges: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    findings: tuple[AnyFinding, ...] = ()


@dataclass(frozen=True)
class Arm:
    """Totals of one arm."""

    variant: str
    users: int
    requests: int
    impressions: int
    clicks: int


@dataclass(frozen=True)
class DomainEffect:
    """Click-through in one domain. p_holm: adjusted for the number of domains; offline_lift: of NDCG, if known."""

    domain: str
    effect: Effect
    p_holm: float | None
    offline_lift: float | None


@dataclass(frozen=True)
class Comparison:
    """One treatment against the control.

    ctr, ctr_adjusted: plain, and with CUPED (None without a past), at the level of this look.
    decisive: the one that decides: with CUPED, where there is a past. That is known before anybody is exposed.
    variance_cut: share of the variance that CUPED removed.
    clicks_per_request, impressions_per_user, domains, guardrails: at 95 %; they decide nothing.
    """

    variant: str
    ctr: Effect
    ctr_adjusted: Effect | None
    decisive: Effect
    variance_cut: float | None
    clicks_per_request: Effect
    impressions_per_user: Effect
    domains: tuple[DomainEffect, ...]
    guardrails: tuple[Effect, ...]
    trend: Trend | None
    action: Action


@dataclass(frozen=True)
class Report:
    """Everything that is said about an experiment; JSON, Markdown and the one sentence are made of this."""

    key: str
    hypothesis: str
    control: str
    minimum_effect: float
    started_at: datetime
    planned_end: datetime | None
    as_of: datetime
    look: Look
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    ranks: dict[str, ByRank]
    lists: Lists | None
    latency: dict[str, tuple[Quantile, ...]]
    findings: tuple[AnyFinding, ...]


def make_report(subject: Subject, observed: Observed) -> Report:
    """The report. Every exposed user counts in the arm it was assigned to, whatever it was answered with."""
    sums = observed.users.sums()
    look = subject.look(len(observed.users.variant))
    control, treatments = subject.variants[0], subject.variants[1:]
    trends = _trends(observed, control, treatments)
    findings = _findings(subject, observed, sums, trends)
    trusted = all(finding.severity != "invalid" for finding in findings)
    return Report(
        key=subject.key,
        hypothesis=subject.hypothesis,
        control=control,
        minimum_effect=subject.minimum_effect,
        started_at=subject.started_at,
        planned_end=subject.planned_end,
        as_of=subject.as_of,
        look=look,
        arms=tuple(_arm(name, sums[name]) for name in subject.variants),
        comparisons=tuple(
            _comparison(control, name, observed, sums, trends.get(name), look, trusted) for name in treatments
        ),
        ranks={domain: by_rank(counts) for domain, counts in observed.ranks.items()},
        lists=lists(observed.items_shown, OVERLAP_K) if observed.items_shown else None,
        latency=quantiles_by_variant(observed.latency, observed.latency_edges, sums),
        findings=findings,
    )


def action_of(effect: Effect, look: Look, trusted: bool) -> Action:
    """What to do about this effect at this look; `trusted`: nothing is found that makes the figures invalid."""
    if not trusted:
        return "not_trusted"
    if effect.status == "too_few_users":
        return "too_few_users"
    if effect.p is None or effect.difference is None:
        return "nothing_to_compare"
    if effect.p < look.level and effect.difference < 0:
        return "roll_back"
    if effect.p < look.level and (look.last or look.number >= FEWEST_DAYS):
        return "ship"
    return "no_difference" if look.last else "wait"


def _arm(name: str, sums: Sums) -> Arm:
    counts = {column: round(sums.total(column)) for column in ("requests", "impressions", "clicks")}
    return Arm(name, sums.n, **counts)


def _trends(observed: Observed, control: str, treatments: tuple[str, ...]) -> dict[str, Trend]:
    arms = observed.by_exposure_day
    return {name: trend(arms[control], arms[name], observed.exposure_days) for name in treatments if name in arms}


def _findings(
    subject: Subject, observed: Observed, sums: Mapping[str, Sums], trends: Mapping[str, Trend]
) -> tuple[AnyFinding, ...]:
    """Worst first; within a severity in this order."""
    control, treatments = sums[subject.variants[0]], subject.variants[1:]
    found: list[AnyFinding | None] = [sample_ratio({name: arm.n for name, arm in sums.items()}, subject.weights)]
    found += observed.findings
    found.append(bots(observed.users))
    for name in treatments:
        found += imbalance(name, control, sums[name])
        found.append(unequal_lists(name, control, sums[name]))
        found += [guardrail_worse(name, estimate(control, sums[name], metric)) for metric in GUARDRAILS]
        found.append(novelty(name, trends[name]) if name in trends else None)
    order = ("invalid", "caution", "note")
    return tuple(sorted((finding for finding in found if finding), key=lambda finding: order.index(finding.severity)))


def _comparison(
    control: str,
    name: str,
    observed: Observed,
    sums: Mapping[str, Sums],
    of_days: Trend | None,
    look: Look,
    trusted: bool,
) -> Comparison:
    a, b = sums[control], sums[name]
    ctr, cuped = compare(a, b, CTR, look.level), adjusted(a, b, CTR, look.level)
    decisive = cuped or ctr
    return Comparison(
        variant=name,
        ctr=ctr,
        ctr_adjusted=cuped,
        decisive=decisive,
        variance_cut=variance_cut(ctr, cuped) if cuped else None,
        clicks_per_request=compare(a, b, CLICKS_PER_REQUEST),
        impressions_per_user=compare(a, b, IMPRESSIONS_PER_USER),
        domains=_domains(control, name, observed),
        guardrails=tuple(compare(a, b, metric) for metric in GUARDRAILS),
        trend=of_days,
        action=action_of(decisive, look, trusted),
    )


def _domains(control: str, name: str, observed: Observed) -> tuple[DomainEffect, ...]:
    effects: dict[str, Effect] = {}
    for domain, users in observed.domains.items():
        sums = users.sums(CTR.columns)
        effects[domain] = adjusted(sums[control], sums[name], CTR) or compare(sums[control], sums[name], CTR)
    p_holm = holm({domain: effect.p for domain, effect in effects.items() if effect.p is not None})
    offline = observed.offline_lifts.get(name, {})
    return tuple(
        DomainEffect(domain, effect, p_holm.get(domain), offline.get(domain)) for domain, effect in effects.items()
    )
