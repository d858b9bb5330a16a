"""CSV and TSV line by line: slower than Polars, but exact about which line is wrong and why."""

import csv
import gzip
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

import polars as pl

from formats.errors import WorkFailed

GZIP_MAGIC: Final = b"\x1f\x8b"
LINES_SCHEMA: Final[dict[str, type[pl.DataType]]] = {
    "line": pl.Int64,
    "user_id": pl.String,
    "item_id": pl.String,
    "domain": pl.String,
    "timestamp": pl.String,
    "event": pl.String,
}
# Few enough that Python's garbage collector does not walk through them over and over (half the time at 500,000).
_ROWS_PER_FRAME: Final = 20_000
# A quoted field may hold line breaks, but one that is never closed must not swallow the rest of the file.
_LINES_PER_ROW: Final = 100


@dataclass(frozen=True)
class Layout:
    """How rows are written: separator, number of fields, and where each known column stands."""

    separator: str
    width: int
    positions: Mapping[str, int]


@dataclass
class _Frame:
    """Rows gathered for one frame."""

    lines: list[int] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    bad: list[tuple[int, str, str]] = field(default_factory=list)

    def full(self) -> bool:
        return len(self.rows) + len(self.bad) >= _ROWS_PER_FRAME

    def frames(self, layout: Layout) -> tuple[pl.DataFrame, pl.DataFrame]:
        columns = {name: [row[position] for row in self.rows] for name, position in layout.positions.items()}
        good = pl.DataFrame({"line": self.lines, **columns}, {name: LINES_SCHEMA[name] for name in ("line", *columns)})
        bad = pl.DataFrame(self.bad, {"line": pl.Int64, "problem": pl.String, "detail": pl.String}, orient="row")
        domain = pl.lit(None, pl.String).alias("domain")
        return good, bad.select("line", domain, "problem", "detail")


def read_header(path: Path, separator: str) -> list[str]:
    """The names in the first line of a CSV or TSV file.

    Raises:
        WorkFailed: the file is empty, or its first line is no header.
    """
    with _open(path) as stream:
        first = stream.readline()
    if not first.strip():
        raise WorkFailed(f"{path}: empty: no header line")
    try:
        return next(csv.reader([first.decode("utf-8-sig").rstrip("\r\n")], delimiter=separator, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise WorkFailed(f"{path}:1: no header line: {error}") from error


def read_lines(path: Path, layout: Layout) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The rows of a CSV or TSV file in pieces; blank lines are no rows.

    Yields:
        A frame of the rows that have the right number of fields: line and the columns of LINES_SCHEMA that the layout
        has, as text. And a frame of the rows that have not: line, domain (null), problem, detail.
    """
    frame = _Frame()
    for line, fields, problem in _rows(path, layout.separator):
        if fields is None:
            frame.bad.append((line, problem, ""))
        elif len(fields) != layout.width:
            frame.bad.append((line, "wrong number of fields", f"{len(fields)} instead of {layout.width}"))
        else:
            frame.lines.append(line)
            frame.rows.append(fields)
        if frame.full():
            yield frame.frames(layout)
            frame = _Frame()
    yield frame.frames(layout)


def _rows(path: Path, separator: str) -> Iterator[tuple[int, list[str] | None, str]]:
    """Line number, fields (None where the line cannot be read) and the problem."""
    with _open(path) as stream:
        lines = _Lines(stream)
        lines.take()  # the header
        while (raw := lines.take()) is not None:
            number = lines.number
            text = raw.rstrip(b"\r\n")
            if not text:
                continue
            try:
                decoded = text.decode()
            except UnicodeDecodeError:
                yield number, None, "not UTF-8"
                continue
            if '"' not in decoded:
                yield number, decoded.split(separator), ""
                continue
            fields = _quoted(raw, lines, separator)
            yield number, fields, "" if fields else "broken quotes"


class _Lines:
    """A stream of lines from which one may also look ahead."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._ahead: deque[bytes] = deque()
        self.number = 0

    def take(self) -> bytes | None:
        """The next line, or None at the end."""
        line = self._ahead.popleft() if self._ahead else self._stream.readline()
        self.number += bool(line)
        return line or None

    def look(self, index: int) -> bytes | None:
        """The line after `index` more, without taking it; None behind the end."""
        while len(self._ahead) <= index:
            line = self._stream.readline()
            if not line:
                return None
            self._ahead.append(line)
        return self._ahead[index]


def _quoted(first: bytes, lines: _Lines, separator: str) -> list[str] | None:
    """The fields of a row with quotes, taking the lines that a quoted line break joins; None if the quotes are broken."""
    row = first
    for more in range(_LINES_PER_ROW):
        try:
            fields = next(csv.reader([row.decode().rstrip("\r\n")], delimiter=separator, strict=True))
        except UnicodeDecodeError:
            return None
        except csv.Error as error:
            following = lines.look(more) if "unexpected end of data" in str(error) else None
            if following is None:
                return None
            row += following
            continue
        for _ in range(more):
            lines.take()
        return fields
    return None


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        packed = stream.read(2) == GZIP_MAGIC
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")
