"""The dataset on disk: what `syncrec prepare` writes and training reads.

    manifest.json      what is in it, and how it came about (training/manifest.py)
    items.parquet      item_index, item_id, domain, popularity, optional title and category
    train/             training events
    context/           events before the cut of users that the thresholds took out of training and that come back later:
                       histories for evaluation, never trained on
    validation/ test/  later events, each to be predicted from everything before it
        user_offsets.npy   int64 [users + 1]: events of user u are [offsets[u], offsets[u + 1])
        item_index.npy     int32 [events]: 1 to items, 0 where training does not know the item
        domain.npy         int16 [events]: 1 to domains
        timestamp.npy      int64 [events]: microseconds, UTC
        user_ids.parquet   user_id of the users that no earlier part has

Users are numbered through the parts in this order, and each part's offsets cover all users up to and with its own. The
arrays are memory-mapped: opening a dataset takes the same time whatever its size. No file is a pickle.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.errors import WorkFailed
from formats.manifests import sha256_of
from training.manifest import ARRAYS, ITEMS, MANIFEST, PARTS, USER_IDS, Manifest, Part, read_manifest

ARRAY_TYPES = dict(zip(ARRAYS, (np.int64, np.int32, np.int16, np.int64), strict=True))


@dataclass(frozen=True)
class EventTable:
    """Events of one part, by user, oldest first; the arrays of the module's docstring."""

    user_offsets: NDArray[np.int64]
    item_index: NDArray[np.int32]
    domain: NDArray[np.int16]
    timestamp: NDArray[np.int64]

    @property
    def users(self) -> int:
        """Number of users that the offsets cover, those without events included."""
        return len(self.user_offsets) - 1

    @property
    def events(self) -> int:
        """Number of events."""
        return len(self.item_index)

    def of_user(self, user: int) -> slice:
        """Where the events of one user stand."""
        return slice(int(self.user_offsets[user]), int(self.user_offsets[user + 1]))


@dataclass(frozen=True)
class Dataset:
    """An opened dataset; item indices run from 1 to `items`, `items` + 1 is the start of a sequence, 0 is padding."""

    path: Path
    manifest: Manifest
    train: EventTable
    context: EventTable
    validation: EventTable
    test: EventTable

    @property
    def domains(self) -> tuple[str, ...]:
        """Names; the first is domain number 1."""
        return self.manifest.domains

    @property
    def items_per_domain(self) -> tuple[int, ...]:
        """Number of items of each domain, in order."""
        return tuple(self.manifest.items_per_domain.values())

    @property
    def items(self) -> int:
        """Number of items over all domains."""
        return self.manifest.items

    @property
    def fingerprint(self) -> str:
        """Says which data this is: equal for equal files, whatever the folder."""
        return self.manifest.fingerprint

    def part(self, name: Part) -> EventTable:
        """The events of one part by its name."""
        return {"train": self.train, "context": self.context, "validation": self.validation, "test": self.test}[name]

    def first_item(self, domain: int) -> int:
        """The first item_index of a domain, by its number from 1; that of `len(domains)` + 1 is `items` + 1."""
        return 1 + sum(self.items_per_domain[: domain - 1])

    def item_domain(self) -> NDArray[np.int64]:
        """Domain number of each item index, 0 for padding and for the start of a sequence, [items + 2]."""
        numbers = np.arange(1, len(self.domains) + 1)
        return np.concatenate([[0], np.repeat(numbers, self.items_per_domain), [0]])

    def catalogue(self) -> pl.DataFrame:
        """The items in order of item_index, which starts at 1.

        Raises:
            WorkFailed: the file is damaged or has another number of items than the manifest.
        """
        table = _read_parquet(self.path / ITEMS)
        if len(table) != self.items:
            raise WorkFailed(f"{self.path / ITEMS}: {len(table)} items, {MANIFEST} has {self.items}")
        return table

    def user_ids(self, part: Part) -> pl.Series:
        """Ids of the users whose numbers begin in this part, in order of number."""
        return _read_parquet(self.path / part / USER_IDS)["user_id"]

    @cached_property
    def all_user_ids(self) -> pl.Series:
        """Ids of all users in order of number."""
        return pl.concat([self.user_ids(part) for part in PARTS])

    def verify(self) -> None:
        """Compare every file with its checksum, which opening does not do.

        Raises:
            WorkFailed: a file differs.
        """
        for name, checksum in self.manifest.files.items():
            file = self.path / name
            if not file.is_file() or sha256_of(file) != checksum:
                raise WorkFailed(f"{file}: SHA-256 differs from {MANIFEST}: the file was changed or damaged")


def open_dataset(path: Path) -> Dataset:
    """Open a dataset: the sizes of all arrays are checked, their contents are not (`Dataset.verify` does).

    Raises:
        WorkFailed: names the file and the field that do not fit.
    """
    manifest = read_manifest(path / MANIFEST)
    if not (path / ITEMS).is_file():
        raise WorkFailed(f"{path / ITEMS}: missing")
    tables, users = {}, 0
    for part in PARTS:
        users += manifest.parts[part].new_users
        tables[part] = _open_table(path / part, users, manifest.parts[part].events)
    return Dataset(path, manifest, **tables)


def _open_table(folder: Path, users: int, events: int) -> EventTable:
    arrays = {name: _open_array(folder / f"{name}.npy", kind) for name, kind in ARRAY_TYPES.items()}
    for name, array in arrays.items():
        wanted = users + 1 if name == "user_offsets" else events
        if array.shape != (wanted,):
            raise WorkFailed(f"{folder / name}.npy: shape {array.shape}, {MANIFEST} says ({wanted},)")
    offsets = arrays["user_offsets"]
    if offsets[0] != 0 or offsets[-1] != events:
        raise WorkFailed(f"{folder}/user_offsets.npy: ends at {offsets[-1]}, there are {events} events")
    if not (folder / USER_IDS).is_file():
        raise WorkFailed(f"{folder / USER_IDS}: missing")
    return EventTable(**arrays)


def _open_array(file: Path, kind: Any) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
    except FileNotFoundError as error:
        raise WorkFailed(f"{file}: missing") from error
    except (ValueError, EOFError) as error:
        # Nothing can be mapped of an array without elements.
        array = _load_empty(file, error)
    if array.dtype != kind:
        raise WorkFailed(f"{file}: dtype: {array.dtype}, not {np.dtype(kind)}")
    return array


def _load_empty(file: Path, cause: Exception) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        array = np.empty(1)
    if array.size:
        raise WorkFailed(f"{file}: damaged or cut short: {cause}") from cause
    return array


def _read_parquet(file: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(file, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise WorkFailed(f"{file}: missing or damaged: {str(error).splitlines()[0]}") from error
