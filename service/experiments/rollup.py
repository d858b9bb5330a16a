"""Roll-up: the event log of each day, once counted, from which every report is made. DuckDB does the counting.

OUT/rollup/day=YYYY-MM-DD/
    users.parquet   experiment, variant, user_id, domain, day, requests, impressions, clicks, model_requests, popularity_requests,
                    degraded_requests, errors, slow_requests, latency_sum (ms). domain null: the user's requests of all domains
    ranks.parquet   experiment, variant, domain, rank, shown, clicked
    items.parquet   experiment, variant, domain, item_id, shown, clicked
    arms.parquet    experiment, variant, logged, recommendations, duplicates, overridden, erased, unfinished, errors, early_clicks,
                    late_clicks, unshown_clicks, unknown_clicks, latency_histogram
    source.json     what these were made of

experiment and variant are null where a user was in none. Users by override are counted in arms as overridden and are in no other table, erased
ones likewise. A recommendation counts once its click window has ended; before, it is unfinished. One that is there twice is the same
twice and counts once (duplicates: how many more rows there were), and so is a click of one rank of one list.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from formats.errors import WorkFailed
from formats.files import replace_file

TABLES = ("users", "ranks", "items", "arms")
SOURCE = "source.json"
VERSION = 1  # of these tables
EARLY_S = 600  # by which a browser's clock may be behind ours
HISTOGRAM_FIRST_MS = (
    0.1  # bucket 0 ends there; each of the next is 2 ** (1/8) times as wide, so that a quantile is right to 9 %
)
HISTOGRAM_LAST = 160


@dataclass(frozen=True)
class RollUpOptions:
    """How to count.

    until: recommendations whose click window ends later are unfinished.
    windows_s: click window of each experiment.
    default_window_s: of those that are not named, and of users in none.
    slow_ms: latency from which a request is slow.
    memory_limit: of DuckDB, as it says it: 3GB.
    """

    until: datetime
    windows_s: Mapping[str, int] = field(default_factory=dict)
    default_window_s: int = 86_400
    slow_ms: float = 100.0
    memory_limit: str = "3GB"
    threads: int = 2


def roll_up(out: Path, options: RollUpOptions) -> list[str]:
    """Count the days that have not been counted as they are now.

    Args:
        out: folder of the event log. Whoever may remove files of it must be kept from doing so (`service.events.files.together`).

    Returns:
        The days that were counted.

    Raises:
        WorkFailed: a file cannot be read or written, or the memory does not suffice.
    """
    done = []
    for folder in sorted((out / "recommendations").glob("day=*")):
        day = folder.name.removeprefix("day=")
        source = _source(out, day, options)
        target = out / "rollup" / folder.name
        if _read(target / SOURCE) != source:
            try:
                _roll_up_day(out, day, target, options)
                replace_file(target / SOURCE, source)
            except (duckdb.Error, OSError) as error:
                raise WorkFailed(f"cannot roll up {folder}: {str(error).splitlines()[0]}") from error
            done.append(day)
    return done


def bucket_ends_ms() -> list[float]:
    """Where each bucket of `latency_histogram` ends; the last has no end and is given the one it would have."""
    return [HISTOGRAM_FIRST_MS * 2 ** (bucket / 8) for bucket in range(HISTOGRAM_LAST + 1)]


def _files(out: Path, table: str, day: str) -> list[Path]:
    return sorted((out / table / f"day={day}").glob("part-*.parquet"))


def _source(out: Path, day: str, options: RollUpOptions) -> bytes:
    """All that the day's tables depend on."""
    files = [*_files(out, "recommendations", day), *_files(out, "events", day)]
    last_window = max([options.default_window_s, *options.windows_s.values()])
    ended = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC) + timedelta(days=1, seconds=last_window)
    says = {
        "version": VERSION,
        "files": [
            [f"{file.parent.parent.name}/{file.name}", file.stat().st_size, file.stat().st_mtime_ns] for file in files
        ],
        "windows_s": dict(sorted(options.windows_s.items())),
        "default_window_s": options.default_window_s,
        "slow_ms": options.slow_ms,
        # Until all of its windows have ended, a day looks different at any time.
        "until": None if options.until >= ended else options.until.isoformat(),
    }
    return json.dumps(says).encode()


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _roll_up_day(out: Path, day: str, target: Path, options: RollUpOptions) -> None:
    target.mkdir(parents=True, exist_ok=True)
    # While the tables change, they are of nothing.
    (target / SOURCE).unlink(missing_ok=True)
    spill = out / "rollup" / ".spill"
    settings: dict[str, Any] = {
        "memory_limit": options.memory_limit,
        "threads": options.threads,
        "temp_directory": str(spill),
    }
    with duckdb.connect(config=settings) as database:
        database.execute(
            "SET enable_progress_bar = false"
        )  # on by default in spawned processes, and on standard output
        _define_inputs(database, out, day, options)
        for statement in (_SERVED, _LISTS, _CLICKS, _CLICKED):
            database.execute(statement)
        for table, query in (("users", _USERS), ("ranks", _RANKS), ("items", _ITEMS), ("arms", _ARMS)):
            partial = target / f".{table}.partial"
            database.execute(f"COPY ({query}) TO '{_quoted(partial)}' (FORMAT parquet, COMPRESSION zstd)")
            partial.replace(target / f"{table}.parquet")


def _define_inputs(database: Any, out: Path, day: str, options: RollUpOptions) -> None:
    for table, empty in (("recommendations", None), ("events", _NO_EVENTS)):
        files = _files(out, table, day)
        rows = f"FROM read_parquet({_text_list(files)}, hive_partitioning = false)" if files else empty
        database.execute(f"CREATE VIEW {table} AS {rows}")
    windows = [(key, options.windows_s[key]) for key in sorted(options.windows_s)]
    database.execute("CREATE TABLE click_windows (experiment VARCHAR, seconds BIGINT)")
    if windows:
        database.executemany("INSERT INTO click_windows VALUES (?, ?)", windows)
    until = options.until.astimezone(UTC).replace(tzinfo=None)
    for name, value in (
        ("today", date.fromisoformat(day)),
        ("until", until),
        ("default_window_s", options.default_window_s),
        ("slow_ms", options.slow_ms),
        ("early_s", EARLY_S),
        ("first_ms", HISTOGRAM_FIRST_MS),
        ("last_bucket", HISTOGRAM_LAST),
    ):
        database.execute(f"SET VARIABLE {name} = ?", [value])


def _quoted(file: Path) -> str:
    return str(file).replace("'", "''")


def _text_list(files: Sequence[Path]) -> str:
    return "[" + ", ".join(f"'{_quoted(file)}'" for file in files) + "]"


_NO_EVENTS = """
SELECT ''::VARCHAR AS item_id, ''::VARCHAR AS domain, NULL::TIMESTAMP AS timestamp, ''::VARCHAR AS event,
    ''::VARCHAR AS recommendation_id, NULL::SMALLINT AS rank
WHERE false
"""

# Each recommendation once in each experiment. Its copies are equal, so any of them does.
# Latency in whole microseconds: the sum of floats would depend on their order.
_SERVED = """
CREATE TABLE served AS
WITH once AS (
    SELECT recommendation_id, experiment, count(*) AS copies, any_value(variant) AS variant, any_value(user_id) AS user_id,
        any_value(reason) AS reason, any_value(source) AS source, any_value(error) AS error, any_value("at") AS made,
        round(any_value(latency_ms)::DOUBLE * 1000)::BIGINT AS latency_us, any_value(lists) AS lists
    FROM recommendations
    GROUP BY ALL
)
SELECT once.*, row_number() OVER () AS number,
    made + to_seconds(coalesce(seconds, getvariable('default_window_s'))) AS window_end,
    made + to_seconds(coalesce(seconds, getvariable('default_window_s'))) <= getvariable('until') AS is_finished,
    coalesce(reason = 'TARGETING_MATCH', false) AS is_overridden,
    user_id = '' AS is_erased,
    is_finished AND NOT is_overridden AND NOT is_erased AS counts
FROM once LEFT JOIN click_windows USING (experiment)
"""

_LISTS = """
CREATE TABLE lists AS
SELECT number, recommendation_id, experiment, variant, user_id, source, error, latency_us, made, window_end, counts,
    shown.domain AS domain, shown.item_ids AS item_ids
FROM (SELECT *, unnest(lists) AS shown FROM served)
"""

# Every click with what it is of. A click that says its rank is of what was shown there, or of nothing.
_CLICKS = """
CREATE TABLE clicks AS
SELECT list.number, list.experiment, list.variant, list.domain, list.counts, click.item_id,
    list_position(list.item_ids, click.item_id) AS position,
    CASE WHEN click.rank IS NULL THEN position WHEN list.item_ids[click.rank] = click.item_id THEN click.rank END AS at_rank,
    CASE
        WHEN at_rank IS NULL THEN 'unshown'
        WHEN click.timestamp < list.made - to_seconds(getvariable('early_s')) THEN 'early'
        WHEN click.timestamp > list.window_end THEN 'late'
        ELSE 'good'
    END AS verdict
FROM (SELECT DISTINCT recommendation_id, domain, item_id, rank, timestamp FROM events
    WHERE event = 'click' AND recommendation_id IS NOT NULL) AS click
JOIN lists AS list USING (recommendation_id, domain)
"""

_CLICKED = """
CREATE TABLE clicked AS
SELECT DISTINCT number, experiment, variant, domain, item_id, at_rank AS rank FROM clicks WHERE counts AND verdict = 'good'
"""

_REQUESTS = """
count(*) AS requests, sum(impressions)::BIGINT AS impressions, sum(clicks)::BIGINT AS clicks,
count(*) FILTER (source = 'model' AND NOT error) AS model_requests,
count(*) FILTER (source = 'popularity' AND NOT error) AS popularity_requests,
count(*) FILTER (source = 'degraded' AND NOT error) AS degraded_requests,
count(*) FILTER (error) AS errors,
count(*) FILTER (latency_us >= getvariable('slow_ms') * 1000) AS slow_requests,
sum(latency_us)::BIGINT / 1000 AS latency_sum
"""

_USERS = f"""
WITH by_domain AS (
    SELECT experiment, variant, user_id, domain, source, error, latency_us, len(item_ids) AS impressions, coalesce(clicks, 0) AS clicks
    FROM lists LEFT JOIN (SELECT number, domain, count(*) AS clicks FROM clicked GROUP BY ALL) USING (number, domain)
    WHERE counts
), overall AS (
    SELECT experiment, variant, user_id, NULL::VARCHAR AS domain, source, error, latency_us,
        coalesce(list_sum(list_transform(lists, lambda list: len(list.item_ids))), 0)::BIGINT AS impressions,
        coalesce(clicks, 0) AS clicks
    FROM served LEFT JOIN (SELECT number, count(*) AS clicks FROM clicked GROUP BY ALL) USING (number)
    WHERE counts
)
SELECT experiment, variant, user_id, domain, getvariable('today') AS day, {_REQUESTS}
FROM (FROM by_domain UNION ALL FROM overall)
GROUP BY experiment, variant, user_id, domain
ORDER BY experiment NULLS FIRST, variant NULLS FIRST, user_id, domain NULLS FIRST
"""  # noqa: S608 (of ours alone)

_RANKS = """
WITH lengths AS (
    SELECT experiment, variant, domain, len(item_ids) AS length, count(*) AS lists FROM lists WHERE counts GROUP BY ALL
), shown AS (
    SELECT experiment, variant, domain, unnest(range(1, length + 1)) AS rank, lists FROM lengths
), shown_sums AS (
    SELECT experiment, variant, domain, rank::SMALLINT AS rank, sum(lists)::BIGINT AS shown FROM shown GROUP BY ALL
), clicked_sums AS (
    SELECT experiment, variant, domain, rank::SMALLINT AS rank, count(*) AS clicked FROM clicked GROUP BY ALL
)
SELECT s.experiment, s.variant, s.domain, s.rank, shown, coalesce(clicked, 0) AS clicked
FROM shown_sums AS s LEFT JOIN clicked_sums AS c ON s.experiment IS NOT DISTINCT FROM c.experiment
    AND s.variant IS NOT DISTINCT FROM c.variant AND s.domain = c.domain AND s.rank = c.rank
ORDER BY s.experiment NULLS FIRST, s.variant NULLS FIRST, s.domain, s.rank
"""

_ITEMS = """
SELECT experiment, variant, domain, item_id, sum(shown)::BIGINT AS shown, sum(clicked)::BIGINT AS clicked
FROM (
    SELECT experiment, variant, domain, unnest(item_ids) AS item_id, 1 AS shown, 0 AS clicked FROM lists WHERE counts
    UNION ALL
    SELECT experiment, variant, domain, item_id, 0, 1 FROM clicked
)
GROUP BY ALL
ORDER BY experiment NULLS FIRST, variant NULLS FIRST, domain, item_id
"""

_ARMS = """
WITH requests AS (
    SELECT experiment, variant, sum(copies)::BIGINT AS logged, count(*) AS recommendations,
        sum(copies - 1)::BIGINT AS duplicates, count(*) FILTER (is_overridden) AS overridden,
        count(*) FILTER (is_erased) AS erased, count(*) FILTER (NOT is_finished) AS unfinished,
        count(*) FILTER (error AND counts) AS errors,
        histogram(least(getvariable('last_bucket'), greatest(0,
            ceil(8 * log2(greatest(latency_us, 1) / (getvariable('first_ms') * 1000)))))::SMALLINT) FILTER (counts) AS latency_histogram
    FROM served GROUP BY ALL
), bad AS (
    SELECT experiment, variant, count(*) FILTER (verdict = 'early') AS early, count(*) FILTER (verdict = 'late') AS late,
        count(*) FILTER (verdict = 'unshown') AS unshown
    FROM clicks WHERE counts GROUP BY ALL
), strangers AS (
    SELECT count(DISTINCT (recommendation_id, domain, item_id, rank)) AS unknown FROM events
    WHERE event = 'click' AND recommendation_id IS NOT NULL
        AND NOT EXISTS (FROM lists WHERE lists.recommendation_id = events.recommendation_id AND lists.domain = events.domain)
), arms AS (
    SELECT experiment, variant FROM requests UNION SELECT NULL, NULL FROM strangers WHERE unknown > 0
)
SELECT a.experiment, a.variant, coalesce(logged, 0) AS logged, coalesce(recommendations, 0) AS recommendations,
    coalesce(duplicates, 0) AS duplicates, coalesce(overridden, 0) AS overridden, coalesce(erased, 0) AS erased,
    coalesce(unfinished, 0) AS unfinished, coalesce(errors, 0) AS errors, coalesce(early, 0) AS early_clicks,
    coalesce(late, 0) AS late_clicks, coalesce(unshown, 0) AS unshown_clicks,
    CASE WHEN a.experiment IS NULL THEN (SELECT unknown FROM strangers) ELSE 0 END AS unknown_clicks, latency_histogram
FROM arms AS a
LEFT JOIN requests AS r ON a.experiment IS NOT DISTINCT FROM r.experiment AND a.variant IS NOT DISTINCT FROM r.variant
LEFT JOIN bad AS b ON a.experiment IS NOT DISTINCT FROM b.experiment AND a.variant IS NOT DISTINCT FROM b.variant
ORDER BY a.experiment NULLS FIRST, a.variant NULLS FIRST
"""
