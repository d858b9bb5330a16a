"""The event log on disk: Parquet by table and day. Files appear whole; whoever removes some is alone in the folder meanwhile.

OUT/recommendations/day=YYYY-MM-DD/part-*.parquet   one row per `Served`
OUT/events/day=YYYY-MM-DD/part-*.parquet            one row per `Told`
OUT/served/day=YYYY-MM-DD/counts.parquet            experiment, variant, served: what the service says it gave to the log
OUT/rollup/day=YYYY-MM-DD/*.parquet                 made from these by `service.experiments.rollup`
"""

import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from formats.errors import WorkFailed
from formats.files import replace_file
from service.events.served import Row, Served, Told, filed_at
from service.identifiers import new_uuid7

Table = Literal["recommendations", "events"]
TABLES: tuple[Table, ...] = ("recommendations", "events")
MANY_PARTS = 100  # of a day, above which the small ones become one
SMALL_ROWS = 100_000

_LIST = pa.struct(
    [
        ("domain", pa.string()),
        ("item_ids", pa.list_(pa.string())),
        ("team", pa.list_(pa.string())),
        ("explored", pa.int16()),
        ("propensity", pa.float32()),
    ]
)
SCHEMAS: Mapping[Table, Any] = {
    "recommendations": pa.schema(
        [
            ("recommendation_id", pa.string()),
            ("at", pa.timestamp("us")),
            ("user_id", pa.string()),
            ("experiment", pa.string()),
            ("variant", pa.string()),
            ("reason", pa.string()),
            ("source", pa.string()),
            ("model_version", pa.string()),
            ("latency_ms", pa.float32()),
            ("error", pa.bool_()),
            ("interleaved", pa.string()),
            ("lists", pa.list_(_LIST)),
        ]
    ),
    "events": pa.schema(
        [
            ("user_id", pa.string()),
            ("item_id", pa.string()),
            ("domain", pa.string()),
            ("timestamp", pa.timestamp("us")),
            ("event", pa.string()),
            ("event_id", pa.string()),
            ("recommendation_id", pa.string()),
            ("rank", pa.int16()),
        ]
    ),
}
_SERVED = pa.schema([("experiment", pa.string()), ("variant", pa.string()), ("served", pa.int64())])
MAX_RANK = 32_767


@contextmanager
def together(out: Path) -> Iterator[None]:
    """While files are read or added: others may do so too, nobody removes any."""
    with _locked(out, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """While files are removed or replaced."""
    with _locked(out, fcntl.LOCK_EX):
        yield


def table_of(row: Row) -> Table:
    """Which table a row belongs to."""
    return "recommendations" if isinstance(row, Served) else "events"


def arrow_table(table: Table, rows: Sequence[Row]) -> Any:
    """Rows of one table in Arrow."""
    if table == "recommendations":
        return _recommendations([row for row in rows if isinstance(row, Served)])
    return _events([row for row in rows if isinstance(row, Told)])


def add_part(out: Path, table: Table, day: str, content: Any) -> Path:
    """Add a file to a day; when this returns it survives a power cut.

    Raises:
        WorkFailed: it cannot be written; nothing is there then.
    """
    folder = day_folder(out, table, day)
    file = folder / f"part-{new_uuid7()}.parquet"
    write_parquet(file, content)
    return file


def write_parquet(file: Path, content: Any) -> None:
    """Make or replace a file; when this returns it survives a power cut.

    Raises:
        WorkFailed: it cannot be written; what was there before is still there.
    """
    folder = file.parent
    try:
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync_folder(folder.parent)
            sync_folder(folder.parent.parent)
        buffer = pa.BufferOutputStream()
        pq.write_table(content, buffer, compression="zstd")
        replace_file(file, memoryview(buffer.getvalue()))
        sync_folder(folder)
    except OSError as error:
        raise WorkFailed(f"cannot write {file}: {error.strerror or error}") from error


def day_folder(out: Path, table: str, day: str) -> Path:
    """Where a day's files of a table are."""
    return out / table / f"day={day}"


def parts(folder: Path) -> list[Path]:
    """The files of a day's folder, by name; none if there is no such folder."""
    return sorted(folder.glob("part-*.parquet"))


def days(out: Path, table: str) -> list[str]:
    """The days of a table, rising."""
    return sorted(folder.name.removeprefix("day=") for folder in (out / table).glob("day=*"))


def write_counts(out: Path, day: str, counts: Mapping[tuple[str | None, str | None], int]) -> None:
    """Say how many rows each arm was served that day, in place of what was said before.

    Raises:
        WorkFailed: it cannot be written.
    """
    arms = sorted(counts, key=str)
    rows = [{"experiment": arm[0], "variant": arm[1], "served": counts[arm]} for arm in arms]
    write_parquet(day_folder(out, "served", day) / "counts.parquet", pa.Table.from_pylist(rows, schema=_SERVED))


def compact(out: Path, among: Iterable[tuple[Table, str]]) -> None:
    """Make one file of a day's many small ones. Killed on the way, it leaves rows twice, which changes nothing.

    Raises:
        WorkFailed: it cannot be written.
    """
    for table, day in among:
        folder = day_folder(out, table, day)
        if len(parts(folder)) < MANY_PARTS:
            continue
        with alone(out):
            for left_by_a_killed_one in folder.glob(".part-*.partial"):
                left_by_a_killed_one.unlink()
            small = [file for file in parts(folder) if pq.read_metadata(file).num_rows < SMALL_ROWS]
            if len(small) > 1:
                add_part(out, table, day, pa.concat_tables(pq.ParquetFile(file).read() for file in small))
                for file in small:
                    file.unlink()


def retire(out: Path, oldest: str) -> None:
    """Remove the recommendations and events of the days before `oldest`; counts and roll-up stay."""
    for table in TABLES:
        for day in days(out, table):
            if day < oldest:
                with alone(out):
                    shutil.rmtree(day_folder(out, table, day))


def sync_folder(folder: Path) -> None:
    """Have the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(out: Path, how: int) -> Iterator[None]:
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as lock:
        fcntl.flock(lock, how)
        yield


def _recommendations(rows: Sequence[Served]) -> Any:
    """By column, which is several times as fast as by row."""
    lists = [one for row in rows for one in row.lists]
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in Served.__struct_fields__ if name != "lists"
    }
    columns["at"] = [filed_at(row) * 1000 for row in rows]
    fields = [pa.array([getattr(one, field.name) for one in lists], field.type) for field in _LIST]
    ends = list(accumulate((len(row.lists) for row in rows), initial=0))
    nested = pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()), pa.StructArray.from_arrays(fields, fields=list(_LIST))
    )
    schema = SCHEMAS["recommendations"]
    flat = [nested if field.name == "lists" else pa.array(columns[field.name], field.type) for field in schema]
    return pa.Table.from_arrays(flat, schema=schema)


def _events(rows: Sequence[Told]) -> Any:
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in Told.__struct_fields__}
    columns["timestamp"] = [round(row.timestamp * 1_000_000) for row in rows]
    # A rank that no list has counts for nothing, and must not keep its batch from being written.
    columns["rank"] = [None if row.rank is None else max(-1, min(row.rank, MAX_RANK)) for row in rows]
    schema = SCHEMAS["events"]
    return pa.Table.from_arrays([pa.array(columns[field.name], field.type) for field in schema], schema=schema)
