"""Measure what a report costs: a synthetic log is rolled up, reported on, and one more day comes.

  syncrec bench experiment --events 10000000
  syncrec bench experiment --json experiment.json

The log has so many impressions in 14 days, 10 a request in lists of two domains, 100 a user, and a click on every 20th. It is written to a
temporary folder ($TMPDIR), about 20 bytes an impression. Each step runs in a process of its own, with DuckDB as the commands use it.
Targets are for 100 million on 2 cores: roll-up 45 s, report 10 s, one more day 5 s, 4 GB. Exit 0 whatever comes out.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.errors import WorkFailed, WrongUse
from syncrec.console import ProgressLine, table, write_json

if TYPE_CHECKING:
    from service.experiments.definition import Experiment

START = datetime(2026, 3, 2, tzinfo=UTC)
DAYS = 14
PER_REQUEST, PER_USER = 10, 100
TARGET_EVENTS = 100_000_000
MEMORY_TARGET = 4e9
# ru_maxrss is in KiB on Linux and in bytes on macOS.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Step:
    """One measured step. target_s: at `TARGET_EVENTS`; None where there is none."""

    name: str
    seconds: float
    peak_rss_bytes: int
    target_s: float | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--events", type=int, default=TARGET_EVENTS, metavar="N", help="impressions (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.events < PER_USER * DAYS:
        raise WrongUse(f"--events is at least {PER_USER * DAYS:,}")
    progress = ProgressLine()
    with tempfile.TemporaryDirectory(prefix="syncrec-bench-") as folder:
        try:
            steps = measure(Path(folder), arguments.events, progress.show)
        finally:
            progress.clear()
    if str(arguments.json) != "-":
        print(_table(arguments.events, steps))
    if arguments.json is not None:
        write_json(
            arguments.json,
            {"benchmark": "experiment", "events": arguments.events, "steps": [asdict(step) for step in steps]},
        )
    return 0


def measure(log: Path, events: int, progress: Callable[[str], None] = lambda _: None) -> list[Step]:
    """Every step in this empty folder.

    Raises:
        WorkFailed: a file cannot be written or read.
    """
    steps = []
    for name, step, target_s in (
        ("write the log", _write_log, None),
        ("roll-up", _roll_up, 45.0),
        ("report", _report, 10.0),
        ("write one more day", _write_one_more_day, None),
        ("roll-up of one more day", _roll_up_more, 5.0),
    ):
        progress(name)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            seconds, peak = process.submit(_timed, step, log, events).result()
        steps.append(Step(name, seconds, peak, target_s))
    return steps


def _timed(step: Callable[[Path, int], None], log: Path, events: int) -> tuple[float, int]:
    """Seconds, imports included, and peak memory of this process."""
    started = time.perf_counter()
    step(log, events)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT


def _experiment() -> "Experiment":
    from service.experiments.definition import Experiment, Variant

    return Experiment(
        key="bench",
        variants=(Variant("A"), Variant("B")),
        state="running",
        started_at=START.isoformat(),
        planned_end=(START + timedelta(days=DAYS)).isoformat(),
    )


def _write_log(log: Path, events: int) -> None:
    _write_days(log, events, range(DAYS))


def _write_one_more_day(log: Path, events: int) -> None:
    _write_days(log, events, range(DAYS, DAYS + 1))


def _roll_up(log: Path, _: int) -> None:
    _roll_up_until(log, DAYS)


def _roll_up_more(log: Path, _: int) -> None:
    if len(_roll_up_until(log, DAYS + 1)) != 1:
        raise WorkFailed("one more day, and not only that one was rolled up")


def _roll_up_until(log: Path, days: int) -> list[str]:
    from service.experiments.rolled_days import roll_up_options
    from service.experiments.rollup import roll_up

    return roll_up(log, roll_up_options([_experiment()], START + timedelta(days=days + 2)))


def _report(log: Path, _: int) -> None:
    from service.experiments.analysis.render import as_json
    from service.experiments.evidence import report_of

    as_json(report_of(log, _experiment(), START + timedelta(days=DAYS + 2)))


def _write_days(log: Path, events: int, days: range) -> None:
    import duckdb

    from service.events.files import day_folder, write_counts

    requests = events // PER_REQUEST // DAYS
    with duckdb.connect(config={"memory_limit": "3GB", "threads": 2}) as database:
        database.execute("SET enable_progress_bar = false")
        database.execute("CREATE MACRO draw(n, what, below) AS (hash(n, what) % below)::BIGINT")
        for place in days:
            day = START + timedelta(days=place)
            name = day.date().isoformat()
            database.execute("SET VARIABLE begin_ms = ?", [int(day.timestamp() * 1000)])
            database.execute("SET VARIABLE step_ms = ?", [86_400_000 / requests])
            database.execute("SET VARIABLE first = ?", [place * requests])
            database.execute("SET VARIABLE requests = ?", [requests])
            database.execute("SET VARIABLE users = ?", [max(events // PER_USER, 1)])
            for which, query in (("recommendations", _RECOMMENDATIONS), ("events", _CLICKS)):
                folder = day_folder(log, which, name)
                folder.mkdir(parents=True)
                database.execute(f"COPY ({query}) TO '{folder}/part-0.parquet' (FORMAT parquet, COMPRESSION zstd)")
            counted: Any = database.execute(f"SELECT variant, count(*) FROM ({_REQUESTS}) GROUP BY variant").fetchall()  # noqa: S608 (of ours alone)
            write_counts(log, name, {("bench", variant): count for variant, count in counted})


def _table(events: int, steps: list[Step]) -> str:
    rows = [
        [
            step.name,
            f"{step.seconds:.1f} s",
            "" if step.target_s is None else f"{step.target_s:.0f} s",
            f"{step.peak_rss_bytes / 1e9:.2f} GB",
            "" if step.target_s is None else f"{MEMORY_TARGET / 1e9:.0f} GB",
        ]
        for step in steps
    ]
    header = [f"{events:,} impressions", "time", f"target at {TARGET_EVENTS:,}", "peak memory", "target"]
    return table(header, rows)


# One row a request. The same number always draws the same: clicks are of what was shown.
_REQUESTS = """
SELECT n, draw(n, 0, getvariable('users')) AS user_number, CASE draw(user_number, 1, 2) WHEN 0 THEN 'A' ELSE 'B' END AS variant,
    getvariable('begin_ms') + ((n - getvariable('first')) * getvariable('step_ms'))::BIGINT AS ms, draw(n, 2, 10000) AS shift,
    printf('%08x-%04x-7000-8000-%012x', ms >> 16, ms & 65535, n) AS recommendation_id
FROM range(getvariable('first'), getvariable('first') + getvariable('requests')) AS numbers(n)
"""

_RECOMMENDATIONS = f"""
SELECT recommendation_id, make_timestamp(ms * 1000) AS at, 'u' || user_number AS user_id, 'bench' AS experiment, variant,
    'SPLIT' AS reason, CASE draw(n, 3, 20) WHEN 0 THEN 'popularity' ELSE 'model' END AS source, variant AS model_version,
    (2 + draw(n, 4, 10000) / 100.0)::FLOAT AS latency_ms, false AS error, NULL::VARCHAR AS interleaved,
    list_transform(['Books', 'Toys'], lambda domain: struct_pack(
        domain := domain,
        item_ids := list_transform(range(5), lambda place: domain || (shift + place * place) % 10000),
        team := NULL::VARCHAR[], explored := NULL::SMALLINT, propensity := NULL::FLOAT)) AS lists
FROM ({_REQUESTS})
"""  # noqa: S608 (of ours alone)

_CLICKS = f"""
SELECT 'u' || user_number AS user_id, domain || (shift + place * place) % 10000 AS item_id, domain,
    make_timestamp((ms + 1000 + draw(n, 5, 600000)) * 1000) AS timestamp, 'click' AS event, n || domain || place AS event_id,
    recommendation_id, (place + 1)::SMALLINT AS rank
FROM ({_REQUESTS}), (VALUES ('Books', 10), ('Toys', 20)) AS domains(domain, salt), range(5) AS places(place)
WHERE draw(n, salt + place, 1000) < CASE variant WHEN 'A' THEN 50 ELSE 53 END
"""  # noqa: S608 (of ours alone)
