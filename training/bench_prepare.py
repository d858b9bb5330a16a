"""What `syncrec bench prepare` measures: raw events -> dataset, end to end, in a process of its own.

The input is one event table repeated under distinct users until it has as many rows as wanted, written as one plain CSV
file: reading, parsing and encoding ids are part of the measured time, starting Python too.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from formats.errors import WorkFailed
from formats.events import EventSource, IdCodes, read_events

# wait4 counts in KiB on Linux and in bytes on macOS.
_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class PrepareMeasurement:
    """One measured run. Peak memory is that of the child process, its share of mapped files included."""

    rows: int
    input_bytes: int
    seconds: float
    rows_per_second: float
    cpu_seconds: float
    peak_rss_bytes: int
    cores: int
    versions: dict[str, str]


def measure_prepare(events: Path, rows: int, command: Sequence[str]) -> PrepareMeasurement:
    """Repeat the events to so many rows in a temporary folder and run the command on them.

    Args:
        events: an event table as `syncrec prepare` reads it.
        rows: rows of the repeated table, at least 1.
        command: the prepare command; the input file and `--out DATASET` are appended.
    Raises:
        WorkFailed: the events cannot be read, or the command failed.
    """
    with tempfile.TemporaryDirectory(prefix="syncrec-bench-") as folder:
        repeated = Path(folder) / "events.csv"
        repeat_events(events, rows, repeated)
        started = time.perf_counter()
        process = subprocess.Popen(
            [*command, str(repeated), "--out", f"{folder}/dataset"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        complaint = process.stderr.read().decode(errors="replace").strip() if process.stderr else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if process.stderr:
            process.stderr.close()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise WorkFailed(f"the measured command failed: {complaint or f'exit code {process.returncode}'}")
        return PrepareMeasurement(
            rows=rows,
            input_bytes=repeated.stat().st_size,
            seconds=seconds,
            rows_per_second=rows / seconds,
            cpu_seconds=usage.ru_utime + usage.ru_stime,
            peak_rss_bytes=usage.ru_maxrss * _RSS_UNIT,
            cores=usable_cores(),
            versions={"python": platform.python_version(), "polars": pl.__version__, "numpy": np.__version__},
        )


def repeat_events(events: Path, rows: int, out: Path) -> None:
    """Write the events again and again, each time under users of their own, until there are so many rows.

    Raises:
        WorkFailed: the events cannot be read or there are none.
    """
    found = read_events(EventSource(events), {}, IdCodes()).good
    if found.is_empty():
        raise WorkFailed(f"{events}: no events to repeat")
    once = found.select(
        pl.col("user_id", "item_id", "domain").cast(pl.String), timestamp=pl.col("timestamp") // 1_000_000
    )
    with out.open("wb") as stream:
        for copy, first in enumerate(range(0, rows, len(once))):
            part = once.head(rows - first).with_columns(pl.format("{}-{}", "user_id", pl.lit(copy)).alias("user_id"))
            stream.write(part.write_csv(include_header=copy == 0).encode())


def usable_cores() -> int:
    """Cores that this process, and so its children, may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
