"""Many event files as one table, with one rule for how many malformed rows are too many."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from formats.errors import WorkFailed
from formats.events import EventRows, EventSource, IdCodes, read_events

EXAMPLES: Final = 5


@dataclass(frozen=True)
class FoundRows:
    """What the files hold: the rows that were kept, how many were malformed, and the first of those.

    examples: `file:line: reason`, EXAMPLES at most.
    """

    kept: pl.DataFrame
    malformed: int
    examples: tuple[str, ...]


def read_event_files(
    sources: Sequence[EventSource],
    columns: Mapping[str, str],
    max_bad: float,
    keep: Callable[[EventRows], pl.DataFrame],
    progress: Callable[[str], None],
) -> FoundRows:
    """Read all files with one dictionary of ids.

    Args:
        sources: at least one.
        columns: standard name -> the files' name, where they differ.
        max_bad: share of malformed rows up to which the work goes on.
        keep: sees the rows of each file in turn and returns those to keep.
        progress: is told what is read.
    Raises:
        WorkFailed: a file is damaged, there is no row at all, or too many are malformed.
    """
    codes, frames = IdCodes(), []
    examples: list[str] = []
    good = malformed = 0
    for number, source in enumerate(sources, start=1):
        progress(f"reading {number} of {len(sources)}: {source.path}")
        found = read_events(source, columns, codes)
        good, malformed = good + len(found.good), malformed + len(found.bad)
        for line, _, problem, detail in found.bad.head(EXAMPLES - len(examples)).iter_rows():
            examples.append(f"{source.path}:{line}: {' '.join(filter(None, (problem, detail)))}")
        frames.append(keep(found))
    if good + malformed == 0:
        raise WorkFailed(f"{sources[0].path}{' and the others' if len(sources) > 1 else ''}: no rows below the header")
    if malformed > max_bad * (good + malformed):
        raise WorkFailed(
            f"{malformed} of {good + malformed} rows are malformed, more than --max-bad {max_bad:g} allows: "
            + "; ".join(examples)
        )
    return FoundRows(pl.concat(frames), malformed, tuple(examples))
