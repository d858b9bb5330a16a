"""What every study returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StudyTable:
    """A table for a reader.

    left: numbers of the columns that hold words.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: Sequence[int] = (0,)


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    content: all of it, for JSON.
    failed: what is not as it must be, a name each; nothing where a study only describes.
    """

    tables: Sequence[StudyTable]
    content: dict[str, Any]
    failed: Sequence[str] = field(default=())
