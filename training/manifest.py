"""`manifest.json` of a dataset: what is in it and how it came about.

It names no file, folder or date: the same events give the same bytes wherever they lie and however they are cut in files.
"""

from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from formats.errors import WorkFailed
from formats.manifests import checked, read_json_object
from training.splits import SplitKind

SCHEMA_VERSION: Final = 1
MANIFEST: Final = "manifest.json"
ITEMS: Final = "items.parquet"

Part = Literal["train", "context", "validation", "test"]
# In the order in which users are numbered and histories are joined.
PARTS: Final[tuple[Part, ...]] = ("train", "context", "validation", "test")
USER_IDS: Final = "user_ids.parquet"
ARRAYS: Final = ("user_offsets", "item_index", "domain", "timestamp")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Split(_Frozen):
    """How the events were split; the times are ISO 8601 and null for leave-one-out."""

    kind: SplitKind
    validation_from: str | None
    test_from: str | None


class DomainCounts(_Frozen):
    """One part and domain: events, users with such an event, and events of items outside the catalogue (`cold`)."""

    events: int
    users: int
    cold: int


class PartCounts(_Frozen):
    """One part: its events, users with an event in it, users that no earlier part has, and events to be predicted."""

    events: int
    users: int
    new_users: int
    cases: int
    domains: dict[str, DomainCounts]


class Row(_Frozen):
    """One domain of the raw rows; `domain` is empty where it could not be read. read = kept + all dropped."""

    domain: str
    read: int
    kept: int
    dropped: dict[str, int]


class ThresholdRound(_Frozen):
    """What one round of the thresholds removed from training."""

    items: int
    item_events: int
    users: int
    user_events: int


class Report(_Frozen):
    """What happened to the raw rows. tied_share: of the kept events, those with another of the same user and time."""

    rows: tuple[Row, ...]
    threshold_rounds: tuple[ThresholdRound, ...]
    tied_share: float


class Manifest(_Frozen):
    """The whole of `manifest.json`.

    fingerprint: SHA-256 over the names and checksums of all files; training_fingerprint: over train/ and the catalogue.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    split: Split
    domains: tuple[str, ...] = Field(min_length=1)
    items_per_domain: dict[str, int]
    parts: dict[Part, PartCounts]
    options: dict[str, Any]
    report: Report
    files: dict[str, str]
    fingerprint: str
    training_fingerprint: str

    @property
    def items(self) -> int:
        """Number of items over all domains."""
        return sum(self.items_per_domain.values())


def read_manifest(file: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        WorkFailed: names the file and the field that does not fit.
    """
    _, content = read_json_object(file, SCHEMA_VERSION, missing="; `syncrec prepare` makes a dataset")
    manifest = checked(file, content, Manifest)
    if list(manifest.items_per_domain) != list(manifest.domains):
        raise WorkFailed(f"{file}: items_per_domain: not the domains in order")
    if set(manifest.parts) != set(PARTS):
        raise WorkFailed(f"{file}: parts: not {', '.join(PARTS)}")
    return manifest
