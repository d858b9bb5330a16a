"""Writes the arrays and the manifest of a dataset; the layout stands in training/dataset.py."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.catalogue import Catalogue
from training.encoding import CodedEvents
from training.manifest import ITEMS, MANIFEST, PARTS, USER_IDS, DomainCounts, Manifest, Part, PartCounts, Report, Split

# The place of an event that no part keeps; the others are positions in PARTS.
DROPPED: Final = 255
CASE_PARTS: Final = ("validation", "test")


@dataclass(frozen=True)
class SplitEvents:
    """Events in final order with the part that keeps each: a position in PARTS or DROPPED, uint8 [events]."""

    events: CodedEvents
    part: NDArray[np.uint8]
    catalogue: Catalogue


def write_dataset(
    folder: Path, kept: SplitEvents, split: Split, options: Mapping[str, Any], report: Report
) -> Manifest:
    """Fill an empty folder; the bytes depend on the arguments alone.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    files: dict[str, str] = {}
    _write_frame(folder, ITEMS, kept.catalogue.table, files)
    first_part = _first_parts(kept)
    numbering = np.lexsort((np.arange(len(first_part)), first_part))
    number = np.empty(len(numbering), dtype=np.int64)
    number[numbering] = np.arange(len(numbering))
    new_users = np.bincount(first_part, minlength=DROPPED + 1)
    parts: dict[Part, PartCounts] = {}
    users = 0
    for place, name in enumerate(PARTS):
        new = numbering[users : users + new_users[place]]
        users += len(new)
        (folder / name).mkdir()
        _write_frame(folder, f"{name}/{USER_IDS}", kept.events.user_ids.gather(new).to_frame("user_id"), files)
        arrays = _part_arrays(kept, place, number, users)
        for array_name, array in arrays.items():
            _write_array(folder, f"{name}/{array_name}.npy", array, files)
        parts[name] = _counts(name, arrays, len(new), kept.catalogue.domains)
    manifest = _manifest(kept.catalogue, split, parts, options, report, files)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def _first_parts(kept: SplitEvents) -> NDArray[np.uint8]:
    """The first part in which each user has an event, DROPPED where none, [user codes]."""
    first = np.full(len(kept.events.user_ids), DROPPED, dtype=np.uint8)
    for place in reversed(range(len(PARTS))):
        first[kept.events.user[kept.part == place]] = place
    return first


def _part_arrays(kept: SplitEvents, place: int, number: NDArray[np.int64], users: int) -> dict[str, NDArray[Any]]:
    """The four arrays of one part, its events by user number and in final order within a user."""
    rows = np.flatnonzero(kept.part == place)
    user = number[kept.events.user[rows]]
    order = np.argsort(user, kind="stable")
    events = kept.events.take(rows[order])
    return {
        "user_offsets": np.concatenate([[0], np.cumsum(np.bincount(user, minlength=users))]),
        "item_index": kept.catalogue.item_index[events.item],
        "domain": kept.catalogue.domain_number[events.domain],
        "timestamp": events.timestamp,
    }


def _counts(name: Part, arrays: Mapping[str, NDArray[Any]], new_users: int, domains: tuple[str, ...]) -> PartCounts:
    per_user = np.diff(arrays["user_offsets"])
    domain = arrays["domain"]
    present = np.zeros((len(per_user), len(domains) + 1), dtype=bool)
    present[np.repeat(np.arange(len(per_user)), per_user), domain] = True
    events = np.bincount(domain, minlength=len(domains) + 1)
    cold = np.bincount(domain[arrays["item_index"] == 0], minlength=len(domains) + 1)
    users = np.count_nonzero(present, axis=0)
    return PartCounts(
        events=len(domain),
        users=int(np.count_nonzero(per_user)),
        new_users=new_users,
        cases=len(domain) if name in CASE_PARTS else 0,
        domains={
            domain_name: DomainCounts(events=int(events[place]), users=int(users[place]), cold=int(cold[place]))
            for place, domain_name in enumerate(domains, 1)
        },
    )


def _manifest(
    catalogue: Catalogue,
    split: Split,
    parts: dict[Part, PartCounts],
    options: Mapping[str, Any],
    report: Report,
    files: dict[str, str],
) -> Manifest:
    training = {name: checksum for name, checksum in files.items() if name == ITEMS or name.startswith("train/")}
    return Manifest(
        split=split,
        domains=catalogue.domains,
        items_per_domain=dict(zip(catalogue.domains, catalogue.items_per_domain, strict=True)),
        parts=parts,
        options=dict(options),
        report=report,
        files=files,
        fingerprint=_fingerprint(files),
        training_fingerprint=_fingerprint(training),
    )


def _fingerprint(files: Mapping[str, str]) -> str:
    listing = "".join(f"{checksum}  {name}\n" for name, checksum in sorted(files.items()))
    return hashlib.sha256(listing.encode()).hexdigest()


class _HashedFile:
    """A file for writing that knows the SHA-256 of what went into it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.sha256.update(content)
        return self._stream.write(content)


def _write_array(folder: Path, name: str, array: NDArray[Any], files: dict[str, str]) -> None:
    with (folder / name).open("wb") as stream:
        hashed = _HashedFile(stream)
        np.save(hashed, array, allow_pickle=False)
    files[name] = hashed.sha256.hexdigest()


def _write_frame(folder: Path, name: str, frame: pl.DataFrame, files: dict[str, str]) -> None:
    # Through memory: on a full disk Python then raises OSError, whatever Polars would do.
    buffer = BytesIO()
    frame.rechunk().write_parquet(buffer)
    (folder / name).write_bytes(buffer.getbuffer())
    files[name] = hashlib.sha256(buffer.getbuffer()).hexdigest()
