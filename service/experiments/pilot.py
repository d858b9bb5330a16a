"""What a new experiment is planned from: users of the last days, whether they were in an experiment or not."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np

from formats.errors import WorkFailed
from service.experiments.analysis.sums import Sums
from service.experiments.rolled_days import DEFAULT_WINDOW_S, PAST_DAYS, rolled_up


@dataclass(frozen=True, eq=False)
class Pilot:
    """sums: of these users, with their past. new_users_per_day: who came for the first time on each day from `first` to `last`."""

    sums: Sums
    new_users_per_day: list[int]
    first: date
    last: date


def pilot_of(log_dir: Path, days: int, at: datetime) -> Pilot:
    """So many days that end when all windows of the default length are over at `at`.

    A user who is in experiments of several layers counts in each: that changes its weight, not its click-through.

    Raises:
        WorkFailed: there is no roll-up of those days, or it cannot be read.
    """
    last = (at - timedelta(days=1, seconds=DEFAULT_WINDOW_S)).date()
    first = last - timedelta(days=days - 1)
    folders = rolled_up(log_dir)
    now = [str(folder / "users.parquet") for day, folder in folders.items() if first <= day <= last]
    before = [
        str(folder / "users.parquet")
        for day, folder in folders.items()
        if first - timedelta(days=PAST_DAYS) <= day < first
    ]
    if not now:
        raise WorkFailed(f"{log_dir}: nothing is logged from {first} to {last}")
    try:
        with duckdb.connect(config={"threads": 2}) as database:
            found = database.execute(_PILOT, {"now": now, "before": before or now, "first": first}).fetchnumpy()
    except duckdb.Error as error:
        raise WorkFailed(f"{log_dir}: cannot read the roll-up: {str(error).splitlines()[0]}") from error
    place = found.pop("place").astype(np.int64)
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in found.items()}
    return Pilot(Sums.of(columns), np.bincount(place, minlength=days).tolist(), first, last)


# `before` without days of its own is the pilot itself, none of whose days is before the first.
_PILOT = """
WITH now AS (
    SELECT user_id, sum(impressions)::DOUBLE AS impressions, sum(clicks)::DOUBLE AS clicks, date_diff('day', $first, min(day)) AS place
    FROM read_parquet($now, hive_partitioning = false) WHERE domain IS NULL GROUP BY user_id
), before AS (
    SELECT user_id, sum(impressions)::DOUBLE AS impressions, sum(clicks)::DOUBLE AS clicks
    FROM read_parquet($before, hive_partitioning = false) WHERE domain IS NULL AND day < $first GROUP BY user_id
)
SELECT place, now.impressions, now.clicks, coalesce(before.impressions, 0) AS pre_impressions,
    coalesce(before.clicks, 0) AS pre_clicks
FROM now LEFT JOIN before USING (user_id)
ORDER BY user_id
"""
