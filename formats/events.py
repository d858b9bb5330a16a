"""The event table on disk: its columns, and readers for CSV, TSV (also .gz) and Parquet.

A file that is whole is read by Polars at full speed. Where that finds anything wrong, the file is read a second time,
line by line (`formats.event_lines`), so that every bad row has its line and its reason and no good row is lost.
"""

import glob
import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import polars as pl
from polars.exceptions import ColumnNotFoundError, ComputeError, NoDataError, PolarsError

from formats.errors import WorkFailed, WrongUse
from formats.event_lines import Layout, read_header, read_lines
from formats.event_times import time_microseconds

REQUIRED: Final = ("user_id", "item_id", "domain", "timestamp")
KNOWN_COLUMNS: Final = (*REQUIRED, "event")
KINDS: Final = ("interaction", "impression", "click")
# Any other word in the column `event`; such rows are read and can be counted, but never chosen.
OTHER_KIND: Final = "other"
KIND_TYPE: Final = pl.Enum([*KINDS, OTHER_KIND])

Problem = Literal[
    "wrong number of fields",
    "broken quotes",
    "not UTF-8",
    "missing user_id",
    "missing item_id",
    "missing domain",
    "bad time",
]
BAD_SCHEMA: Final = {"line": pl.Int64, "domain": pl.String, "problem": pl.String, "detail": pl.String}
TEXT_SUFFIXES: Final = {".csv": ",", ".tsv": "\t"}


@dataclass(frozen=True)
class EventSource:
    """One file of events; `domain` is the domain of all its rows where the file itself does not say."""

    path: Path
    domain: str | None = None


@dataclass(frozen=True)
class IdCodes:
    """Dictionaries of ids, shared by all files of one reading, so that their codes fit together.

    A column of ids holds 4 bytes per row instead of a string.
    """

    user_id: pl.DataType = field(default_factory=lambda: pl.Categorical(pl.Categories.random()))
    item_id: pl.DataType = field(default_factory=lambda: pl.Categorical(pl.Categories.random()))
    domain: pl.DataType = field(default_factory=lambda: pl.Categorical(pl.Categories.random()))


@dataclass(frozen=True)
class EventRows:
    """What one file holds.

    good: user_id, item_id, domain (categorical), timestamp (int64, microseconds, UTC), event (KIND_TYPE), in file order.
    bad: line (from 1, header included; in Parquet the row, from 1), domain (null where unreadable), problem, detail.
    """

    good: pl.DataFrame
    bad: pl.DataFrame


def find_files(patterns: Sequence[str]) -> list[Path]:
    """The files that paths and globs name, in the order given, each glob sorted.

    Raises:
        WrongUse: a name or glob finds nothing, names a folder, or a file is named twice.
    """
    found = [path for pattern in patterns for path in _matches(pattern)]
    for path in found:
        if path.is_dir():
            raise WrongUse(f"{path} is a directory: name its files, such as '{path}/*.csv'")
    twice = {path for path in found if found.count(path) > 1} if len(set(found)) < len(found) else set()
    if twice:
        raise WrongUse(f"{min(twice)} is named twice")
    return found


def read_events(source: EventSource, columns: Mapping[str, str], codes: IdCodes) -> EventRows:
    """Read one file.

    Args:
        source: the file, .csv, .tsv, .csv.gz, .tsv.gz or .parquet.
        columns: standard name -> the file's name, for those that differ.
        codes: the dictionaries to encode ids with.
    Raises:
        WorkFailed: the file is empty, damaged, or its header lacks a required column.
        WrongUse: its name has another ending.
    """
    path = source.path
    suffix = Path(path.name.removesuffix(".gz")).suffix
    try:
        if suffix == ".parquet":
            return _read_parquet(source, columns, codes)
        if suffix in TEXT_SUFFIXES:
            return _read_text(source, columns, codes, TEXT_SUFFIXES[suffix])
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise WorkFailed(f"{path}: damaged or cut short: {error}") from error
    except OSError as error:
        # Polars has its own words and no errno, for a truncated .gz for instance.
        raise WorkFailed(f"{path}: {error.strerror or f'damaged or cut short: {error}'}") from error
    raise WrongUse(f"{path}: unknown kind of file; known: .csv, .tsv, .csv.gz, .tsv.gz, .parquet")


def _matches(pattern: str) -> list[Path]:
    if Path(pattern).exists():
        return [Path(pattern)]
    found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute patterns)
    if not found:
        raise WrongUse(f"{pattern}: no such file")
    return [Path(path) for path in found]


def _read_text(source: EventSource, columns: Mapping[str, str], codes: IdCodes, separator: str) -> EventRows:
    header = read_header(source.path, separator)
    layout = Layout(separator, len(header), _positions(source, columns, header))
    good = _read_whole(source, layout, codes)
    if good is not None:
        return EventRows(good, pl.DataFrame(schema=BAD_SCHEMA))
    good_parts, bad_parts = [], []
    for lines, unreadable in read_lines(source.path, layout):
        rows = _split_good_and_bad(lines.lazy(), lines.schema, source, codes)
        good_parts.append(rows.good)
        bad_parts += [rows.bad, unreadable]
    return EventRows(pl.concat(good_parts), pl.concat(bad_parts).sort("line"))


def _positions(source: EventSource, columns: Mapping[str, str], header: Sequence[str]) -> dict[str, int]:
    """Where each known column stands in the file; the domain is not looked up where the source gives it."""
    positions = {}
    for name in KNOWN_COLUMNS:
        theirs = columns.get(name, name)
        if name == "domain" and source.domain is not None:
            continue
        if header.count(theirs) > 1:
            raise WorkFailed(f"{source.path}: column {theirs} appears {header.count(theirs)} times in the header")
        if theirs in header:
            positions[name] = header.index(theirs)
        elif name in REQUIRED or name in columns:
            raise WorkFailed(
                f"{source.path}: no column {theirs} in the header ({', '.join(header)}); --columns {name}=… maps one"
            )
    return positions


def _read_whole(source: EventSource, layout: Layout, codes: IdCodes) -> pl.DataFrame | None:
    """All rows at full speed, or None when something in the file needs the reading line by line."""
    for time_type in (pl.Int64(), pl.String()):
        schema: dict[str, pl.DataType] = {str(position): pl.String() for position in range(layout.width)}
        schema[str(layout.positions["timestamp"])] = time_type
        text = pl.scan_csv(
            source.path,
            separator=layout.separator,
            has_header=False,
            skip_rows=1,
            schema=schema,
            glob=False,
            raise_if_empty=False,
        )
        named = {name: pl.col(str(position)) for name, position in layout.positions.items()}
        types = pl.Schema({name: schema[str(position)] for name, position in layout.positions.items()})
        # A row that ends early looks to Polars like one whose last fields are empty; "" it keeps as an empty string.
        complete = pl.col(str(layout.width - 1)).is_not_null()
        words = [column.ne_missing("") for name, column in named.items() if name != "timestamp"]
        lazy = text.select(**named, whole=pl.all_horizontal(complete, *words))
        try:
            rows = lazy.select(*_encoded(types, source, codes), "whole").collect(engine="streaming")
        except PolarsError:
            continue
        return rows.drop("whole") if rows["whole"].all() and not any(rows.null_count().row(0)) else None
    return None


def _read_parquet(source: EventSource, columns: Mapping[str, str], codes: IdCodes) -> EventRows:
    try:
        scan = pl.scan_parquet(source.path, glob=False)
        schema = scan.collect_schema()
        positions = _positions(source, columns, schema.names())
        theirs = {name: schema.names()[position] for name, position in positions.items()}
        types = pl.Schema({name: schema[column] for name, column in theirs.items()})
        lines = scan.select(**{name: pl.col(column) for name, column in theirs.items()}).with_row_index("line", 1)
        return _split_good_and_bad(lines, types, source, codes)
    except (ComputeError, NoDataError, ColumnNotFoundError) as error:
        raise WorkFailed(f"{source.path}: not a Parquet file, or damaged: {_first_line(error)}") from error
    except TypeError as error:
        raise WorkFailed(f"{source.path}: column {columns.get('timestamp', 'timestamp')}: {error}") from error


def _split_good_and_bad(lines: pl.LazyFrame, types: pl.Schema, source: EventSource, codes: IdCodes) -> EventRows:
    """Rows with their line -> those that can be used and those that cannot, each with its first problem.

    Args:
        lines: line and the known columns that the file has, under their standard names.
        types: their types in the file.
    """
    words = [name for name in types if name not in {"line", "timestamp"}]
    rows = (
        lines.with_columns(_null_if_empty(name) for name in words)
        .select(
            *_encoded(types, source, codes),
            line=pl.col("line").cast(pl.Int64),
            time_text=pl.col("timestamp").cast(pl.String, strict=False),
        )
        .collect(engine="streaming")
    )
    missing = [
        pl.when(pl.col(name).is_null()).then(pl.lit(f"missing {name}")) for name in ("user_id", "item_id", "domain")
    ]
    no_time = pl.when(pl.col("timestamp").is_null()).then(pl.lit("bad time"))
    is_bad = pl.any_horizontal(pl.col(REQUIRED).is_null())
    bad = rows.filter(is_bad).select(
        "line",
        pl.col("domain").cast(pl.String),
        problem=pl.coalesce(*missing, no_time),
        detail=pl.col("time_text").fill_null(""),
    )
    quoted = pl.when(pl.col("problem") == "bad time").then(pl.format("'{}'", "detail")).otherwise(pl.lit(""))
    return EventRows(rows.filter(~is_bad).drop("line", "time_text"), bad.with_columns(detail=quoted))


def _encoded(types: pl.Schema, source: EventSource, codes: IdCodes) -> list[pl.Expr]:
    """The five columns of `EventRows.good`, of words that are null where missing; null where a time is none."""
    domain = pl.col("domain") if source.domain is None else pl.lit(source.domain)
    event = pl.col("event").fill_null(KINDS[0]) if "event" in types else pl.lit(KINDS[0])
    known_event = pl.when(event.is_in(KINDS)).then(event).otherwise(pl.lit(OTHER_KIND))
    return [
        pl.col("user_id").cast(codes.user_id),
        pl.col("item_id").cast(codes.item_id),
        domain.cast(codes.domain).alias("domain"),
        time_microseconds("timestamp", types["timestamp"]).alias("timestamp"),
        known_event.cast(KIND_TYPE).alias("event"),
    ]


def _null_if_empty(column: str) -> pl.Expr:
    text = pl.col(column).cast(pl.String)
    return pl.when(text != "").then(text).alias(column)


def _first_line(error: PolarsError) -> str:
    return str(error).strip().split("\n", 1)[0]
