"""All sentences of a report. Whoever changes a word changes it here, for JSON, Markdown and HTML alike."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from service.experiments.analysis import warnings as w
from service.experiments.analysis.off_policy import Value
from service.experiments.analysis.plan import Plan
from service.experiments.analysis.ratio import Effect, Interval
from service.experiments.analysis.report import Action, Comparison, Report
from service.experiments.analysis.sequential import Look

MISSING: Final = "–"

METRICS: Final = {
    "ctr": "click-through",
    "ctr before": "click-through before exposure",
    "requests per user before": "requests per user before exposure",
    "clicks_per_request": "clicks per request",
    "impressions_per_user": "impressions per user",
    "error_share": "share of failed requests",
    "fallback_share": "share of answers by popularity",
    "degraded_share": "share of degraded answers",
    "slow_share": "share of slow answers",
    "mean_latency_ms": "mean latency in ms",
}

SEVERITIES: Final = {"invalid": "Do not trust the figures", "caution": "Caution", "note": "Note"}

_ADVICE: Final[dict[Action, str]] = {
    "ship": "ship it",
    "roll_back": "roll it back",
    "wait": "do not stop yet",
    "no_difference": "no difference was found; keep what is simpler",
    "too_few_users": "too few users to say anything; do not stop yet",
    "nothing_to_compare": "there is nothing to compare yet",
    "not_trusted": "explain the warnings first, the figures cannot be trusted",
}


def percent(share: float | None, digits: int = 1) -> str:
    """0.061 as 6.1 %."""
    return MISSING if share is None else f"{_number(100 * share, digits)} %"


def lift(effect: Effect) -> str:
    """Relative lift with its interval: 6.1 % (2.4 to 9.8)."""
    return _with_interval(effect.relative, effect.relative_interval)


def sentence(report: Report) -> str:
    """What a product owner can act on; of several treatments one after the other."""
    return " ".join(f"{_said(report, comparison)}." for comparison in report.comparisons)


def advice(action: Action) -> str:
    """What to do."""
    return _ADVICE[action]


def effect_of(report: Report, comparison: Comparison) -> str:
    """What happened to click-through so far, without what to do."""
    effect, name = comparison.decisive, comparison.variant
    if effect.status == "too_few_users":
        return f"{name} has {effect.users[1]} users and {report.control} {effect.users[0]}"
    if effect.relative is None:
        return f"{name} cannot be compared with {report.control}: nothing was shown or nothing was clicked"
    if effect.p is not None and effect.p < effect.level:
        did = "raised" if effect.relative > 0 else "lowered"
        return f"{name} {did} click-through by {_of_size(effect)}"
    side = "above" if effect.relative >= 0 else "below"
    return f"click-through of {name} is {_of_size(effect)} {side} {report.control}'s, which may be chance"


def when(look: Look, planned_end: datetime | None) -> str:
    """Where in its planned time the experiment is."""
    if planned_end is None or look.planned is None:
        return f"no planned end, day {look.number}"
    if look.last:
        return f"planned end {day(planned_end)} reached"
    return f"planned end {day(planned_end)}, look {look.number} of {look.planned}"


def frame(report: Report) -> str:
    """What to know before reading the figures."""
    return (
        f"As of {report.as_of:%Y-%m-%d %H:%M} UTC. Smallest effect worth having: {percent(report.minimum_effect)}. "
        f"Intervals of click-through are {percent(1 - report.look.level)} at this look, so that looking every day is "
        "allowed; all others are 95 %."
    )


def day(at: datetime) -> str:
    """3 Dec."""
    return f"{at.day} {at:%b}"


def finding(found: w.AnyFinding) -> str:
    """One warning in one sentence, with what to do about it."""
    return _FINDINGS[type(found)](found)


def plan(found: Plan) -> str:
    """What a plan comes to."""
    wanted = (
        f"To find a change of {METRICS[found.metric]} by {percent(found.minimum_effect)} (now {percent(found.baseline, 2)}) "
        f"with {percent(found.power, 0)} probability, {found.users:,} users are needed"
    )
    if found.days is None:
        return f"{wanted}; they do not come within a year: accept a larger minimum effect or more traffic."
    return f"{wanted}: {found.days} {'day' if found.days == 1 else 'days'}."


def off_policy(found: Value) -> str:
    """What another ranker would have earned, or why that cannot be said."""
    if found.value is None or found.interval is None:
        return (
            f"{found.requests:,} slots are worth only {found.effective:,.0f} that the other ranker would also have "
            "shown: too few to say anything; explore more, or longer."
        )
    value = f"{percent(found.value, 2)} ({_range(found.interval, 100, 2)})"
    return f"The other ranker's items would be clicked in {value}, from {found.effective:,.0f} effective slots."


def _said(report: Report, comparison: Comparison) -> str:
    where = when(report.look, report.planned_end)
    said = f"{effect_of(report, comparison)}; {where}: {advice(comparison.action)}"
    return said[0].upper() + said[1:] if said.startswith("click-through") else said


def _of_size(effect: Effect) -> str:
    """The size of a lift whose direction is said in words; its interval then keeps its signs only if it has both."""
    size, interval = effect.relative or 0.0, effect.relative_interval
    if size < 0 and interval is not None:
        interval = Interval(-interval.upper, -interval.lower)
    return _with_interval(abs(size), interval)


def _with_interval(value: float | None, interval: Interval | None) -> str:
    return percent(value) if interval is None else f"{percent(value)} ({_range(interval, 100, 1)})"


def _range(interval: Interval, times: float, digits: int) -> str:
    return f"{_number(times * interval.lower, digits)} to {_number(times * interval.upper, digits)}"


def _number(value: float, digits: int) -> str:
    """With a minus sign, and without one before a rounded zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", "−")


def _plain(value: float | None) -> str:
    """Of a metric that may be a share or a number of ms."""
    return MISSING if value is None else f"{value:.4g}".replace("-", "−")


def _users_per_arm(found: w.SampleRatio) -> str:
    return ", ".join(f"{name} {n:,} (expected {found.expected[name]:,.0f})" for name, n in found.users.items())


def _bots(found: w.Bots) -> str:
    without = ", ".join(
        f"{name} {percent(found.lifts[name])} with and {percent(lift)} without them"
        for name, lift in found.lifts_without.items()
    )
    return (
        f"{found.users:,} users ({percent(found.users_share, 2)}, {percent(found.requests_share)} of requests) behave like "
        f"bots. They are in the figures; lift of {without}."
    )


_FINDINGS: Final[dict[type, Callable[[Any], str]]] = {
    w.SampleRatio: lambda f: (
        f"Users were lost or added in one arm: {_users_per_arm(f)}. By chance once in {1 / max(f.p, 1e-12):,.0f} "
        "experiments; find out which before reading on."
    ),
    w.ServedNotLogged: lambda f: (
        f"On {f.day.isoformat()} {f.variant} answered {f.served:,} times and {f.logged:,} are in the log, "
        f"{abs(f.served - f.logged):,} {'fewer' if f.logged < f.served else 'more'}."
    ),
    w.MixedUsers: lambda f: (
        f"{f.mixed:,} of {f.users:,} users were seen in more than one arm; check caches and the salt."
    ),
    w.Imbalance: lambda f: (
        f"{f.variant} differed before the experiment began: {METRICS[f.metric]} {_plain(f.treatment)}, "
        f"control {_plain(f.control)}. Start again with another salt."
    ),
    w.UnequalLists: lambda f: (
        f"{f.variant} shows {_plain(f.treatment)} items per request and the control {_plain(f.control)}: "
        "click-through is not comparable; read clicks per request and click-through by rank."
    ),
    w.Duplicates: lambda f: f"{f.duplicates:,} of {f.rows:,} rows of {f.variant} came twice and were counted once.",
    w.Bots: _bots,
    w.UnfinishedWindows: lambda f: (
        f"{f.unfinished:,} of {f.recommendations:,} recommendations may still be clicked and are not in the figures."
    ),
    w.StrayClicks: lambda f: (
        f"{f.unknown_recommendation:,} clicks name recommendations that are not in the log, {f.never_shown:,} items that "
        f"were not shown; of {f.clicks:,} clicks. They are not counted."
    ),
    w.ClockSkew: lambda f: (
        f"{f.before:,} of {f.clicks:,} clicks are older than what they clicked: clocks of clients are wrong."
    ),
    w.LateClicks: lambda f: (
        f"{f.late:,} of {f.clicks:,} clicks came after the click window and are not counted."
        + (" The window is too short." if f.severity == "caution" else "")
    ),
    w.Novelty: lambda f: (
        f"The effect of {f.variant} {'fades' if f.change_per_day < 0 else 'grows'} as users get used to it, by "
        f"{percent(abs(f.change_per_day))} a day: the lift at the end is not the lift that stays."
    ),
    w.Changed: lambda f: f"Changed while running, on {f.at:%Y-%m-%d %H:%M} UTC: {f.what}.",
    w.GuardrailWorse: lambda f: (
        f"{f.variant}: {METRICS[f.metric]} is {_plain(f.treatment)} where the control has {_plain(f.control)}."
    ),
}
