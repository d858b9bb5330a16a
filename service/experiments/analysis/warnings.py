"""What can be wrong with an experiment: one type each, with the numbers that show it. The words are in `wording.py`.

Severity: "invalid" (do not believe the figures before this is explained), "caution" (read them with it in mind), "note".
Tests alarm at 0.1 %, because a report is read on many days.
"""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Final, Literal

import msgspec
from scipy.stats import chisquare

from service.experiments.analysis.ratio import CTR, IMPRESSIONS_PER_REQUEST, Effect, Interval, Ratio, estimate
from service.experiments.analysis.sums import Sums

ALARM_LEVEL: Final = 1e-3
# A share of users, rows or clicks below which a fault cannot move a lift by a tenth of what anybody wants to see.
TOLERATED: Final = 1e-3
# Lists that differ by less than 1 % are no other product.
LISTS_DIFFER: Final = 0.01
# Share of clicks after the window from which on it is too short.
WINDOW_TOO_SHORT: Final = 0.05

Severity = Literal["invalid", "caution", "note"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, tag_field="code"):
    """One thing that is wrong; `code` in JSON says which."""

    severity: Severity


class SampleRatio(Finding, frozen=True, tag="sample_ratio"):
    """The arms do not have the users that their weights say: some were lost, or some added."""

    users: dict[str, int]
    expected: dict[str, float]
    p: float


class ServedNotLogged(Finding, frozen=True, tag="served_not_logged"):
    """On this day the service answered for this arm more often (or less often) than the log says."""

    variant: str
    day: date
    served: int
    logged: int


class MixedUsers(Finding, frozen=True, tag="mixed_users"):
    """Users who were seen in more than one arm."""

    mixed: int
    users: int


class Imbalance(Finding, frozen=True, tag="imbalance_before_exposure"):
    """The arms differed before anything was done to them."""

    variant: str
    metric: str
    control: float | None
    treatment: float | None
    p: float | None


class UnequalLists(Finding, frozen=True, tag="unequal_lists"):
    """The arms show lists of other lengths, which moves click-through by itself. Values: impressions per request."""

    variant: str
    control: float | None
    treatment: float | None


class Duplicates(Finding, frozen=True, tag="duplicates"):
    """Rows that came more than once; they were counted once."""

    variant: str
    rows: int
    duplicates: int


class Bots(Finding, frozen=True, tag="bots"):
    """Users who do not behave like people. Shares of all; lifts with and without them."""

    users: int
    users_share: float
    requests_share: float
    lifts: dict[str, float | None]
    lifts_without: dict[str, float | None]


class UnfinishedWindows(Finding, frozen=True, tag="unfinished_windows"):
    """Recommendations that may still be clicked; they are not in the figures."""

    unfinished: int
    recommendations: int


class StrayClicks(Finding, frozen=True, tag="stray_clicks"):
    """Clicks of recommendations that are not in the log, and of items that the recommendation did not show."""

    unknown_recommendation: int
    never_shown: int
    clicks: int


class ClockSkew(Finding, frozen=True, tag="clock_skew"):
    """Clicks whose time is before their recommendation: clients whose clocks are wrong."""

    before: int
    clicks: int


class LateClicks(Finding, frozen=True, tag="late_clicks"):
    """Clicks after the click window; they are not counted."""

    late: int
    clicks: int


class Novelty(Finding, frozen=True, tag="novelty"):
    """The effect changes as users get used to the variant. change_per_day: of log lift."""

    variant: str
    change_per_day: float
    interval: Interval
    p: float


class Changed(Finding, frozen=True, tag="changed_while_running"):
    """The experiment was changed while it ran."""

    at: datetime
    what: str


class GuardrailWorse(Finding, frozen=True, tag="guardrail"):
    """Something that must not get worse got worse."""

    variant: str
    metric: str
    control: float | None
    treatment: float | None
    difference: Interval | None


AnyFinding = (
    SampleRatio
    | ServedNotLogged
    | MixedUsers
    | Imbalance
    | UnequalLists
    | Duplicates
    | Bots
    | UnfinishedWindows
    | StrayClicks
    | ClockSkew
    | LateClicks
    | Novelty
    | Changed
    | GuardrailWorse
)


def sample_ratio(users: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio | None:
    """Chi-square test of the users of each arm; users who were put into an arm by hand must not be among them."""
    total, weight = sum(users.values()), sum(weights.values())
    if total == 0:
        return None
    expected = {name: total * weights[name] / weight for name in users}
    p = float(chisquare(list(users.values()), list(expected.values())).pvalue)
    return SampleRatio(severity="invalid", users=dict(users), expected=expected, p=p) if p < ALARM_LEVEL else None


def served_not_logged(
    served: Mapping[tuple[date, str], int], logged: Mapping[tuple[date, str], int]
) -> tuple[ServedNotLogged, ...]:
    """Every day and arm whose counter of the service is not the number of distinct logged recommendations."""
    found = []
    for day, variant in sorted(served.keys() | logged.keys()):
        counted, kept = served.get((day, variant), 0), logged.get((day, variant), 0)
        if counted != kept:
            much = abs(counted - kept) > TOLERATED * max(counted, kept)
            severity: Severity = "invalid" if much else "caution"
            found.append(ServedNotLogged(severity=severity, variant=variant, day=day, served=counted, logged=kept))
    return tuple(found)


def mixed_users(mixed: int, users: int) -> MixedUsers | None:
    """Users in two arms: an assignment that holds has none."""
    if mixed == 0:
        return None
    return MixedUsers(severity="invalid" if mixed > TOLERATED * users else "caution", mixed=mixed, users=users)


def imbalance(variant: str, control: Sums, treatment: Sums) -> tuple[Imbalance, ...]:
    """An A/A test of the time before exposure: click-through, and how often users came."""
    metrics = (CTR.before(), Ratio("requests per user before", "pre_requests", "users"))
    effects = [estimate(control, treatment, metric) for metric in metrics]
    return tuple(
        Imbalance(
            severity="invalid",
            variant=variant,
            metric=effect.metric,
            control=effect.control,
            treatment=effect.treatment,
            p=effect.p,
        )
        for effect in effects
        if effect.p is not None and effect.p < ALARM_LEVEL
    )


def unequal_lists(variant: str, control: Sums, treatment: Sums) -> UnequalLists | None:
    """Impressions per request differ, by the test and by more than `LISTS_DIFFER`."""
    effect = estimate(control, treatment, IMPRESSIONS_PER_REQUEST)
    if effect.relative is None or abs(effect.relative) < LISTS_DIFFER or not _sure(effect):
        return None
    return UnequalLists(severity="invalid", variant=variant, control=effect.control, treatment=effect.treatment)


def duplicates(rows: Mapping[str, int], distinct: Mapping[str, int]) -> tuple[Duplicates, ...]:
    """Of every arm that has any."""
    return tuple(
        Duplicates(severity="note", variant=variant, rows=count, duplicates=count - distinct[variant])
        for variant, count in sorted(rows.items())
        if count > distinct[variant]
    )


def unfinished_windows(unfinished: int, recommendations: int) -> UnfinishedWindows | None:
    """Any that are left out."""
    if unfinished == 0:
        return None
    return UnfinishedWindows(severity="note", unfinished=unfinished, recommendations=recommendations)


def stray_clicks(unknown_recommendation: int, never_shown: int, clicks: int) -> StrayClicks | None:
    """Clicks that belong to nothing that was shown."""
    stray = unknown_recommendation + never_shown
    if stray == 0:
        return None
    return StrayClicks(
        severity="caution" if stray > TOLERATED * clicks else "note",
        unknown_recommendation=unknown_recommendation,
        never_shown=never_shown,
        clicks=clicks,
    )


def clock_skew(before: int, clicks: int) -> ClockSkew | None:
    """Clicks from before what they clicked."""
    if before == 0:
        return None
    return ClockSkew(severity="caution" if before > TOLERATED * clicks else "note", before=before, clicks=clicks)


def late_clicks(late: int, clicks: int) -> LateClicks | None:
    """Clicks after the window: a note while they are few."""
    if late == 0:
        return None
    return LateClicks(severity="caution" if late > WINDOW_TOO_SHORT * clicks else "note", late=late, clicks=clicks)


def changed(changes: Sequence[tuple[datetime, str]]) -> tuple[Changed, ...]:
    """Every change since the start."""
    return tuple(Changed(severity="caution", at=at, what=what) for at, what in changes)


def guardrail_worse(variant: str, effect: Effect) -> GuardrailWorse | None:
    """A metric of which more is worse, and there is more of it."""
    if effect.difference is None or effect.difference <= 0 or not _sure(effect):
        return None
    return GuardrailWorse(
        severity="caution",
        variant=variant,
        metric=effect.metric,
        control=effect.control,
        treatment=effect.treatment,
        difference=effect.difference_interval,
    )


def _sure(effect: Effect) -> bool:
    """The test alarms, or there is nothing to test: both arms are constant and not the same."""
    return bool(effect.difference) if effect.p is None else effect.p < ALARM_LEVEL
