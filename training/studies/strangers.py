"""Datasets with a domain that has nothing to do with the others: one whose users were exchanged, or one of noise.

Everything else stays: users, events, times and parts of the other domains, so that their test events are the same ones.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.errors import WorkFailed, WrongUse
from formats.folders import new_folder
from training.catalogue import Catalogue
from training.dataset import Dataset
from training.dataset_writer import SplitEvents, write_dataset
from training.encoding import CodedEvents
from training.manifest import PARTS

NOISE: Final = "(noise)"
NOISE_ITEMS: Final = 500
# Events of the noise domain, of all of the dataset.
NOISE_SHARE: Final = 0.25
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Events:
    """All events of a dataset, user by user and oldest first.

    user: number. item: item_index, 0 where training does not know it. domain: number from 1. part: position in PARTS, [events] each.
    """

    user: Ints
    item: Ints
    domain: Ints
    timestamp: Ints
    part: Ints

    def sorted(self) -> "Events":
        """By user, then time; events of one time keep their order."""
        return self.take(np.lexsort((self.timestamp, self.user)))

    def take(self, rows: Ints) -> "Events":
        """These events in this order."""
        return Events(*(getattr(self, name)[rows] for name in ("user", "item", "domain", "timestamp", "part")))


def with_exchanged_users(dataset: Dataset, domain: str, path: Path, seed: int = 0) -> None:
    """Write the dataset in which everybody's events of one domain are those of somebody else.

    The domain itself is as predictable as before; it only says nothing of the others any more, nor they of it.

    Raises:
        WrongUse: no such domain, or the folder exists.
        WorkFailed: the parts are not cut by time, and events would change parts.
    """
    number = _number(dataset, domain)
    events = _events(dataset)
    # Users of training alone: later ones are numbered by the part that they begin in.
    other = np.arange(len(dataset.all_user_ids))
    other[: dataset.train.users] = np.random.default_rng((seed, 11)).permutation(dataset.train.users)
    exchanged = replace(events, user=np.where(events.domain == number, other[events.user], events.user))
    _write(dataset, exchanged.sorted(), dataset.catalogue(), path)


def with_noise(dataset: Dataset, path: Path, seed: int = 0) -> None:
    """Write the dataset with one more domain, of items drawn by lot at the times of everybody's other events.

    Raises:
        WrongUse: the folder exists.
        WorkFailed: the parts are not cut by time, or there are too few events.
    """
    events, random = _events(dataset), np.random.default_rng((seed, 12))
    count = int(NOISE_SHARE / (1 - NOISE_SHARE) * len(events.user))
    beside = events.take(np.sort(random.choice(len(events.user), count)))
    drawn = _once_a_user(beside.user, random.integers(0, NOISE_ITEMS, count))
    beside, drawn = beside.take(np.flatnonzero(drawn >= 0)), drawn[drawn >= 0]
    popularity = np.bincount(drawn[beside.part == 0], minlength=NOISE_ITEMS)
    if not popularity.all():
        raise WorkFailed(f"{dataset.path}: too few events for {NOISE_ITEMS} items of noise")
    # As everywhere, items are numbered by falling popularity.
    rank = np.argsort(np.argsort(-popularity, kind="stable"))
    first = dataset.items + 1
    noise = replace(beside, item=first + rank[drawn], domain=np.full(len(drawn), 1 + len(dataset.domains)))
    known = dataset.catalogue()
    items = pl.DataFrame(
        {
            "item_index": first + np.arange(NOISE_ITEMS),
            "item_id": [f"noise-{number}" for number in range(NOISE_ITEMS)],
            "domain": [NOISE] * NOISE_ITEMS,
            "popularity": np.sort(popularity)[::-1],
        }
    ).cast({name: known.schema[name] for name in ("item_index", "popularity")})
    _write(dataset, _joined(events, noise).sorted(), pl.concat([known, items], how="diagonal"), path)


def _once_a_user(user: Ints, item: Ints) -> Ints:
    """-1 instead of an item that its user has had before: datasets that drop repeats hold none."""
    _, first = np.unique(user * (item.max() + 1) + item, return_index=True)
    kept = np.full_like(item, -1)
    kept[first] = item[first]
    return kept


def _number(dataset: Dataset, domain: str) -> int:
    if domain not in dataset.domains:
        raise WrongUse(f"{dataset.path}: no domain {domain}; it has {', '.join(dataset.domains)}")
    return 1 + dataset.domains.index(domain)


def _events(dataset: Dataset) -> Events:
    if dataset.manifest.split.kind != "temporal":
        raise WorkFailed(f"{dataset.path}: must be split by time")
    tables = [dataset.part(name) for name in PARTS]

    def column(of: Callable[[int], NDArray[np.generic]]) -> Ints:
        return np.concatenate([np.asarray(of(place)).astype(np.int64) for place in range(len(tables))])

    return Events(
        user=column(lambda place: np.repeat(np.arange(tables[place].users), np.diff(tables[place].user_offsets))),
        item=column(lambda place: tables[place].item_index),
        domain=column(lambda place: tables[place].domain),
        timestamp=column(lambda place: tables[place].timestamp),
        part=column(lambda place: np.full(tables[place].events, place)),
    ).sorted()


def _joined(one: Events, other: Events) -> Events:
    columns = ("user", "item", "domain", "timestamp", "part")
    return Events(*(np.concatenate([getattr(one, name), getattr(other, name)]) for name in columns))


def _write(dataset: Dataset, events: Events, catalogue: pl.DataFrame, path: Path) -> None:
    sizes_of = catalogue.group_by("domain", maintain_order=True).len()
    names, sizes = tuple(sizes_of["domain"]), tuple(sizes_of["len"])
    # An unknown item of each domain gets a code behind those of the known ones.
    code = np.where(events.item > 0, events.item - 1, len(catalogue) + events.domain - 1)
    coded = CodedEvents(
        user=events.user.astype(np.int32),
        item=code.astype(np.int32),
        timestamp=events.timestamp,
        user_ids=dataset.all_user_ids,
        item_ids=pl.concat([catalogue["item_id"], pl.Series("item_id", [""] * len(names))]),
        item_domain=np.concatenate([np.repeat(np.arange(len(names)), sizes), np.arange(len(names))]).astype(np.int16),
        domains=names,
    )
    known = Catalogue(
        table=catalogue,
        domains=names,
        items_per_domain=sizes,
        item_index=np.concatenate([np.arange(1, len(catalogue) + 1), np.zeros(len(names))]).astype(np.int32),
        domain_number=np.arange(1, len(names) + 1, dtype=np.int16),
    )
    split = SplitEvents(coded, events.part.astype(np.uint8), known)
    with new_folder(path) as folder:
        write_dataset(folder, split, dataset.manifest.split, dataset.manifest.options, dataset.manifest.report)
