"""What a person sees: one progress line on a terminal, quiet lines elsewhere; tables; JSON."""

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from formats.errors import WorkFailed


class ProgressLine:
    """One line on stderr that is written over on a terminal, and left out elsewhere."""

    def __init__(self) -> None:
        self.on_terminal = sys.stderr.isatty()
        self.open = False

    def show(self, text: str) -> None:
        """Replace the line."""
        if self.on_terminal:
            sys.stderr.write(f"\r\033[K{text}")
            sys.stderr.flush()
            self.open = True

    def clear(self) -> None:
        """Take the line away, so that ordinary output follows."""
        if self.open:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self.open = False


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> str:
    """Columns under their names; those in `left` hold words and are left-aligned, the others figures."""
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]

    def aligned(line: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(aligned(line) for line in [header, *rows])


def write_json(file: Path, content: Any) -> None:
    """Write a result; `-` is standard output.

    Raises:
        WorkFailed: the file cannot be written.
    """
    text = json.dumps(content, indent=2) + "\n"
    if str(file) == "-":
        sys.stdout.write(text)
        return
    try:
        file.write_text(text)
    except OSError as error:
        raise WorkFailed(f"cannot write {file}: {error.strerror}") from error


def duration(seconds: float) -> str:
    """A time span as people say it: 4.2 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
