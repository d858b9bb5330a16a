"""The rolled-up days that a report of an experiment is made of, and whether they are as it needs them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from formats.errors import WorkFailed
from service.experiments.definition import Experiment
from service.experiments.rollup import SOURCE, VERSION, RollUpOptions
from service.timestamps import seconds_of

# Days before the start that CUPED looks back on: four weeks, so that weekdays weigh alike.
PAST_DAYS: Final = 28
DEFAULT_WINDOW_S: Final = 86_400
AGAIN: Final = "syncrec experiment report rolls it up again"


@dataclass(frozen=True)
class RolledDays:
    """Folders of the roll-up, by day.

    past: days before the experiment began; during: from its first day on.
    as_of: what the figures show: what was asked for, but not after the end of the experiment, nor after what was rolled up.
    sources: what each of them was made of, by day; the same later means that nobody changed them meanwhile.
    """

    past: Mapping[date, Path]
    during: Mapping[date, Path]
    as_of: datetime
    sources: Mapping[date, bytes]

    def check_unchanged(self) -> None:
        """Raises WorkFailed if somebody has rolled up meanwhile, so that what was read may be half of this and half of that."""
        if any(_source(folder) != self.sources[day] for day, folder in {**self.past, **self.during}.items()):
            raise WorkFailed("the roll-up has changed while it was read; try again")


def roll_up_options(experiments: Iterable[Experiment], until: datetime) -> RollUpOptions:
    """How to roll up for reports of these experiments at this time. Windows of the default length are not named: days are counted
    again when the names change.
    """
    windows = {one.key: one.click_window_s for one in experiments if one.click_window_s != DEFAULT_WINDOW_S}
    return RollUpOptions(until=until, windows_s=windows, default_window_s=DEFAULT_WINDOW_S)


def rolled_days(log_dir: Path, experiment: Experiment, at: datetime) -> RolledDays:
    """The days that a report at this time needs.

    Raises:
        WorkFailed: the experiment has not begun by then; there is no roll-up of it, or one for another time or click window.
    """
    started = begin_of(experiment)
    if started is None or started > at:
        raise WorkFailed(f"'{experiment.key}' has not begun at {at:%Y-%m-%d %H:%M} UTC")
    end = at if experiment.stopped_at is None else min(at, time_of(experiment.stopped_at))
    folders = rolled_up(log_dir)
    first = started.date()
    past = {day: folder for day, folder in folders.items() if first - timedelta(days=PAST_DAYS) <= day < first}
    during = {day: folder for day, folder in folders.items() if first <= day <= end.date()}
    if not during:
        raise WorkFailed(f"{log_dir}: there is no roll-up of {first} or later yet; syncrec experiment report makes one")
    sources = {day: _checked_source(folder) for day, folder in (past | during).items()}
    rolled_until = [_until(json.loads(sources[day]), experiment, at) for day in during]
    as_of = min([end, *(until for until in rolled_until if until is not None)])
    return RolledDays(past, during, as_of, sources)


def rolled_up(log_dir: Path) -> dict[date, Path]:
    """All days that were rolled up, rising."""
    folders = sorted((log_dir / "rollup").glob("day=*"))
    return {date.fromisoformat(folder.name.removeprefix("day=")): folder for folder in folders}


def begin_of(experiment: Experiment) -> datetime | None:
    """When it was started; None: it has not been."""
    return None if experiment.started_at is None else time_of(experiment.started_at)


def time_of(text: str) -> datetime:
    """A time of a definition, in UTC."""
    return datetime.fromtimestamp(seconds_of(text), UTC)


def _source(folder: Path) -> bytes | None:
    try:
        return (folder / SOURCE).read_bytes()
    except FileNotFoundError:
        return None


def _checked_source(folder: Path) -> bytes:
    source = _source(folder)
    if source is None:
        raise WorkFailed(f"{folder} is being rolled up, or was left half done; try again, or {AGAIN}")
    if json.loads(source)["version"] != VERSION:
        raise WorkFailed(f"{folder} was rolled up by another version; {AGAIN}")
    return source


def _until(source: Mapping[str, Any], experiment: Experiment, at: datetime) -> datetime | None:
    """Up to when a day was rolled up; None: to its end, with all windows."""
    window = source["windows_s"].get(experiment.key, source["default_window_s"])
    if window != experiment.click_window_s:
        raise WorkFailed(f"rolled up with a click window of {window} s, not {experiment.click_window_s} s; {AGAIN}")
    if source["until"] is None:
        return None
    until = datetime.fromisoformat(source["until"])
    if until > at:
        raise WorkFailed(f"rolled up until {until:%Y-%m-%d %H:%M} UTC, after the report's time; {AGAIN}")
    return until
