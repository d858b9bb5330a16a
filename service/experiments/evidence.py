"""From the roll-up of the event log to the report of an experiment. DuckDB adds up days; only days that are needed are read.

Users who were seen in two arms belong to neither: they are left out of the figures and counted in a warning. Everybody else counts
in the arm it was assigned to. Rows come in the order of user ids and sums are of whole numbers, so that the same log gives the same bytes.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
from numpy.typing import NDArray

from formats.errors import WorkFailed
from service.experiments.analysis.guardrails import GUARDRAILS
from service.experiments.analysis.novelty import by_exposure_day
from service.experiments.analysis.ranks import RankCounts
from service.experiments.analysis.report import Observed, Report, Subject, make_report
from service.experiments.analysis.sums import Sums
from service.experiments.analysis.users import Users
from service.experiments.definition import Experiment
from service.experiments.log_findings import LogCounts, log_findings
from service.experiments.rolled_days import RolledDays, begin_of, rolled_days, time_of
from service.experiments.rollup import bucket_ends_ms

# Days since exposure at which novelty is looked for.
NOVELTY_DAYS: Final = 14
# By which the last rows of a day are in the log.
SETTLED: Final = timedelta(hours=1)
MEMORY_LIMIT: Final = "2GB"

NOW: Final = ("requests", "impressions", "clicks", *(metric.numerator for metric in GUARDRAILS))
BEFORE: Final = ("requests", "impressions", "clicks")
OF_DOMAIN: Final = ("impressions", "clicks")


def report_of(log_dir: Path, experiment: Experiment, at: datetime) -> Report:
    """The report at this time, from what has been rolled up.

    Args:
        log_dir: folder of the event log.
        at: with a time zone.

    Raises:
        WorkFailed: there is no roll-up as it is needed, nothing is logged of the experiment, or a file cannot be read.
    """
    if experiment.kind == "interleaving":
        raise WorkFailed(f"'{experiment.key}' interleaves: all users see both variants, and a report compares users")
    days = rolled_days(log_dir, experiment, at)
    try:
        with _database(days) as database:
            observed = _observed(database, log_dir, days, experiment)
    except (duckdb.Error, OSError) as error:
        raise WorkFailed(f"{log_dir}: cannot read the roll-up: {str(error).splitlines()[0]}") from error
    finally:
        # First: half-changed files explain every other failure.
        days.check_unchanged()
    return make_report(_subject(experiment, days.as_of), observed)


def _subject(experiment: Experiment, as_of: datetime) -> Subject:
    started = begin_of(experiment)
    assert started is not None
    return Subject(
        key=experiment.key,
        hypothesis=experiment.hypothesis,
        variants=tuple(variant.name for variant in experiment.variants),
        weights={variant.name: variant.weight for variant in experiment.variants},
        minimum_effect=experiment.minimum_effect,
        started_at=started,
        planned_end=None if experiment.planned_end is None else time_of(experiment.planned_end),
        as_of=as_of,
    )


@contextmanager
def _database(days: RolledDays) -> Iterator[Any]:
    """With views of the roll-up's tables: `users` of the days of the experiment, `past_users` of those before, and so on."""
    with duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "threads": 2}) as database:
        database.execute(
            "SET enable_progress_bar = false"
        )  # on by default in spawned processes, and on standard output
        for table in ("users", "ranks", "items", "arms"):
            database.execute(f"CREATE VIEW {table} AS FROM {_parquet(days.during.values(), table)}")
        past = f"FROM {_parquet(days.past.values(), 'users')}" if days.past else "FROM users WHERE false"
        database.execute(f"CREATE VIEW past_users AS {past}")
        yield database


def _parquet(folders: Iterable[Path], table: str) -> str:
    # The day of a table of arms is in its folder's name only.
    files = ", ".join("'{}'".format(str(folder / f"{table}.parquet").replace("'", "''")) for folder in folders)
    return f"read_parquet([{files}], hive_partitioning = {str(table == 'arms').lower()})"


def _observed(database: Any, log_dir: Path, days: RolledDays, experiment: Experiment) -> Observed:
    variants = tuple(variant.name for variant in experiment.variants)
    database.execute("SET VARIABLE key = ?", [experiment.key])
    database.execute("SET VARIABLE variants = ?", [list(variants)])
    arms = _arms(database, experiment)
    database.execute(_EXPOSED)
    database.execute(_PEOPLE)
    found = _columns(database, _OVERALL)
    variant = found.pop("variant").astype(np.int64)
    mixed, exposed = database.execute("SELECT count(*) FILTER (is_mixed), count(*) FROM exposed").fetchone()
    ranks, clicks, all_clicks = _ranks(database, variants)
    over = [day for day in days.during if _end_of(day) + SETTLED <= days.as_of]
    served = _served(database, log_dir, over, experiment.key)
    counts = _log_counts(arms, served, over, clicks, all_clicks, mixed, exposed, _nobodys(database))
    exposure_days = tuple(range(min(NOVELTY_DAYS, (days.as_of.date() - min(days.during)).days + 1)))
    return Observed(
        users=Users(variants, variant, {"users": np.ones(len(variant))} | found),
        domains=_domains(database, variants, variant),
        by_exposure_day=_by_exposure_day(database, variants, variant, exposure_days),
        exposure_days=exposure_days,
        ranks=ranks,
        items_shown=_items_shown(database, variants),
        latency=_latency(arms, variants),
        # Nothing is below 0; the first bucket has its neighbours' width.
        latency_edges=np.array([bucket_ends_ms()[0] / 2 ** (1 / 8), *bucket_ends_ms()]),
        findings=log_findings(counts, experiment, days.as_of),
    )


def _columns(database: Any, query: str) -> dict[str, NDArray[np.float64]]:
    found: dict[str, NDArray[np.float64]] = {
        name: np.asarray(values, dtype=np.float64) for name, values in database.execute(query).fetchnumpy().items()
    }
    return found


def _arms(database: Any, experiment: Experiment) -> list[dict[str, Any]]:
    """Rows of the table of arms, one for each day and variant.

    Raises:
        WorkFailed: there are none, or of a variant that the definition does not have.
    """
    result = database.execute("FROM arms WHERE experiment = getvariable('key') ORDER BY day, variant")
    names = [column[0] for column in result.description]
    arms = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    if not arms:
        raise WorkFailed(f"nothing is logged of '{experiment.key}' since {experiment.started_at}")
    if strange := {arm["variant"] for arm in arms} - {variant.name for variant in experiment.variants}:
        raise WorkFailed(f"the log has a variant of '{experiment.key}' that its definition has not: {min(strange)}")
    return arms


def _nobodys(database: Any) -> tuple[int, int]:
    """Clicks of recommendations that nobody knows, and bad clicks of everybody."""
    found: tuple[int, int] = database.execute(
        "SELECT sum(unknown_clicks)::BIGINT, sum(early_clicks + late_clicks + unshown_clicks)::BIGINT FROM arms"
    ).fetchone()
    return found


def _log_counts(
    arms: Sequence[Mapping[str, Any]],
    served: Mapping[tuple[date, str], int],
    over: Collection[date],
    good_clicks: int,
    all_good_clicks: int,
    mixed: int,
    exposed: int,
    nobodys: tuple[int, int],
) -> LogCounts:
    def total(column: str, *names: str) -> int:
        return sum(arm[column] for arm in arms if not names or arm["variant"] in names)

    names = {arm["variant"] for arm in arms}
    logged = {(arm["day"], arm["variant"]): arm["recommendations"] for arm in arms if arm["day"] in over}
    early, late, unshown = total("early_clicks"), total("late_clicks"), total("unshown_clicks")
    unknown, all_bad = nobodys
    return LogCounts(
        rows={name: total("logged", name) for name in names},
        distinct={name: total("recommendations", name) for name in names},
        logged=logged,
        served=served,
        unfinished=total("unfinished"),
        recommendations=total("recommendations"),
        early=early,
        late=late,
        unshown=unshown,
        clicks=good_clicks + early + late + unshown,
        unknown=unknown,
        all_clicks=all_good_clicks + all_bad + unknown,
        mixed=mixed,
        users=exposed,
    )


def _end_of(day: date) -> datetime:
    return datetime.combine(day, datetime.min.time(), UTC) + timedelta(days=1)


def _served(database: Any, log_dir: Path, days: Sequence[date], key: str) -> dict[tuple[date, str], int]:
    """What the service counted on these days, by variant."""
    files = [(day, log_dir / "served" / f"day={day}" / "counts.parquet") for day in days]
    query = "SELECT variant, served FROM read_parquet(?) WHERE experiment = ?"
    return {
        (day, variant): served
        for day, file in files
        if file.exists()
        for variant, served in database.execute(query, [str(file), key]).fetchall()
    }


def _domains(database: Any, variants: tuple[str, ...], variant: NDArray[np.int64]) -> dict[str, Users]:
    """Users of each domain: those who were shown a list of it."""
    domains = [name for (name,) in database.execute(_DOMAIN_NAMES).fetchall()]
    database.execute("SET VARIABLE domains = ?", [domains])
    found = _columns(database, _BY_DOMAIN)
    place = found.pop("domain")
    number = found.pop("number").astype(np.int64)
    ends = np.searchsorted(place, np.arange(len(domains) + 1) + 0.5)
    users = {}
    for domain, first, end in zip(domains, ends[:-1], ends[1:], strict=True):
        of_one = {name: values[first:end] for name, values in found.items()}
        users[domain] = Users(variants, variant[number[first:end]], {"users": np.ones(end - first)} | of_one)
    return users


def _by_exposure_day(
    database: Any, variants: tuple[str, ...], variant: NDArray[np.int64], days: Sequence[int]
) -> dict[str, Sums]:
    found = _columns(database, _BY_AGE)
    columns = by_exposure_day(
        found["number"].astype(np.int64),
        found["age"].astype(np.int64),
        found["clicks"],
        found["impressions"],
        len(variant),
        days,
    )
    return Users(variants, variant, columns).sums()


def _ranks(database: Any, variants: tuple[str, ...]) -> tuple[dict[str, dict[str, RankCounts]], int, int]:
    """Counts by domain and variant; clicks of the experiment and of everybody."""
    counts: dict[str, dict[str, RankCounts]] = {}
    for domain, variant, rank, most, shown, clicked in database.execute(_RANKS).fetchall():
        of_domain = counts.setdefault(
            domain, {name: RankCounts(np.zeros(most, np.int64), np.zeros(most, np.int64)) for name in variants}
        )
        of_domain[variant].shown[rank - 1] = shown
        of_domain[variant].clicked[rank - 1] = clicked
    (everybodys,) = database.execute("SELECT coalesce(sum(clicked), 0)::BIGINT FROM ranks").fetchone()
    own = sum(int(arm.clicked.sum()) for of_domain in counts.values() for arm in of_domain.values())
    return counts, own, everybodys


def _items_shown(database: Any, variants: tuple[str, ...]) -> dict[str, NDArray[np.int64]]:
    """Of the items that any arm showed, in one order."""
    shown = [f"coalesce(sum(shown) FILTER (variant = ${n + 1}), 0)::BIGINT AS arm_{n}" for n in range(len(variants))]
    query = f"""
        SELECT {", ".join(shown)} FROM items WHERE experiment = getvariable('key')
        GROUP BY domain, item_id ORDER BY domain, item_id
    """  # noqa: S608 (of ours alone)
    found = database.execute(query, list(variants)).fetchnumpy()
    return {name: np.asarray(found[f"arm_{n}"], dtype=np.int64) for n, name in enumerate(variants)}


def _latency(arms: Sequence[Mapping[str, Any]], variants: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    found = {name: np.zeros(len(bucket_ends_ms()), np.int64) for name in variants}
    for arm in arms:
        for bucket, count in (arm["latency_histogram"] or {}).items():
            found[arm["variant"]][bucket] += count
    return found


def _totals(columns: Sequence[str], prefix: str = "") -> str:
    """Sums in whole thousandths: a sum of fractions would depend on its order."""
    return ", ".join(f"sum(({name} * 1000)::BIGINT)::DOUBLE / 1000 AS {prefix}{name}" for name in columns)


_EXPOSED = f"""
CREATE TABLE exposed AS
SELECT user_id, min(variant) AS variant, min(variant) <> max(variant) AS is_mixed, min(day) AS first_day, {_totals(NOW)}
FROM users WHERE experiment = getvariable('key') AND domain IS NULL
GROUP BY user_id
"""  # noqa: S608 (of ours alone)

# Who was here before, in whichever experiment or in none.
_PEOPLE = f"""
CREATE TABLE people AS
WITH before AS (
    SELECT user_id, {_totals(BEFORE, "pre_")} FROM past_users
    WHERE domain IS NULL AND user_id IN (SELECT user_id FROM exposed)
    GROUP BY user_id
)
SELECT row_number() OVER (ORDER BY user_id) - 1 AS number, list_position(getvariable('variants'), variant) - 1 AS variant,
    user_id, first_day, {", ".join(NOW)}, {", ".join(f"coalesce(pre_{name}, 0) AS pre_{name}" for name in BEFORE)}
FROM exposed LEFT JOIN before USING (user_id)
WHERE NOT is_mixed
"""  # noqa: S608 (of ours alone)

_OVERALL = f"""
SELECT variant, {", ".join(NOW)}, {", ".join(f"pre_{name}" for name in BEFORE)} FROM people ORDER BY number
"""  # noqa: S608 (of ours alone)

_DOMAIN_NAMES = """
SELECT DISTINCT domain FROM users WHERE experiment = getvariable('key') AND domain IS NOT NULL ORDER BY domain
"""

_BY_DOMAIN = f"""
WITH now AS (
    SELECT domain, number, {_totals(OF_DOMAIN)}
    FROM (SELECT domain, user_id, {", ".join(OF_DOMAIN)} FROM users
        WHERE experiment = getvariable('key') AND domain IS NOT NULL) JOIN (SELECT user_id, number FROM people) USING (user_id)
    GROUP BY ALL
), before AS (
    SELECT domain, number, {_totals(OF_DOMAIN, "pre_")}
    FROM (SELECT domain, user_id, {", ".join(OF_DOMAIN)} FROM past_users WHERE domain IS NOT NULL)
    JOIN (SELECT user_id, number FROM people) USING (user_id)
    GROUP BY ALL
)
SELECT list_position(getvariable('domains'), domain) AS domain, number, {", ".join(OF_DOMAIN)},
    {", ".join(f"coalesce(pre_{name}, 0) AS pre_{name}" for name in OF_DOMAIN)}
FROM now LEFT JOIN before USING (domain, number)
ORDER BY domain, number
"""  # noqa: S608 (of ours alone)

_BY_AGE = f"""
SELECT number, date_diff('day', first_day, day) AS age, users.clicks, users.impressions
FROM users JOIN people USING (user_id)
WHERE experiment = getvariable('key') AND domain IS NULL AND age < {NOVELTY_DAYS}
"""  # noqa: S608 (of ours alone)

_RANKS = """
SELECT domain, variant, rank, max(rank) OVER (PARTITION BY domain) AS most, shown, clicked
FROM (
    SELECT domain, variant, rank, sum(shown)::BIGINT AS shown, sum(clicked)::BIGINT AS clicked
    FROM ranks WHERE experiment = getvariable('key') GROUP BY ALL
)
ORDER BY domain, variant, rank
"""
