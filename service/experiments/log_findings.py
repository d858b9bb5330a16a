"""What the log of an experiment says about itself: rows that are missing, doubled, late or of nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

from service.experiments.analysis.warnings import (
    AnyFinding,
    changed,
    clock_skew,
    duplicates,
    late_clicks,
    mixed_users,
    served_not_logged,
    stray_clicks,
    unfinished_windows,
)
from service.experiments.definition import Experiment
from service.experiments.rolled_days import time_of


@dataclass(frozen=True)
class LogCounts:
    """Counted rows.

    rows, distinct: logged recommendations with and without copies, by variant.
    logged, served: distinct recommendations in the log, and by the service's own count, on each day that is over, by variant.
    unfinished, recommendations: of the experiment.
    early, late, unshown, clicks: clicks of the experiment, `clicks` all of them.
    unknown, all_clicks: clicks of recommendations that nobody knows, which may be anybody's, and all clicks of the log.
    mixed, users: in two arms, and all.
    """

    rows: Mapping[str, int]
    distinct: Mapping[str, int]
    logged: Mapping[tuple[date, str], int]
    served: Mapping[tuple[date, str], int]
    unfinished: int
    recommendations: int
    early: int
    late: int
    unshown: int
    clicks: int
    unknown: int
    all_clicks: int
    mixed: int
    users: int


def log_findings(counts: LogCounts, experiment: Experiment, as_of: datetime) -> tuple[AnyFinding, ...]:
    """Everything that is wrong."""
    found: list[AnyFinding | None] = [
        *served_not_logged(counts.served, counts.logged),
        mixed_users(counts.mixed, counts.users),
        *duplicates(counts.rows, counts.distinct),
        unfinished_windows(counts.unfinished, counts.recommendations),
        # Two, because each is much or little by another measure.
        stray_clicks(counts.unknown, 0, counts.all_clicks),
        stray_clicks(0, counts.unshown, counts.clicks),
        clock_skew(counts.early, counts.clicks),
        late_clicks(counts.late, counts.clicks),
        *changed(_changes(experiment, as_of)),
    ]
    return tuple(finding for finding in found if finding is not None)


def _changes(experiment: Experiment, as_of: datetime) -> list[tuple[datetime, str]]:
    """Since it was started, without starting and stopping themselves."""
    if experiment.started_at is None:
        return []
    began = time_of(experiment.started_at)
    changes = [(time_of(change.at), change.what) for change in experiment.changes]
    return [
        (at, what)
        for at, what in changes
        if began <= at <= as_of and what != "stopped" and not what.startswith("started at ")
    ]
