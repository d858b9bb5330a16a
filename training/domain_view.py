"""One domain of a dataset as a dataset of its own, in memory: what somebody without the other domains would have."""

import hashlib
from dataclasses import dataclass

import numpy as np
import polars as pl

from training.dataset import Dataset, EventTable
from training.manifest import PARTS, Manifest, Part, PartCounts


@dataclass(frozen=True)
class DomainView(Dataset):
    """A dataset of one domain; users, parts and order in time are those of the whole, item indices run from 1 again.

    whole: what it was taken from.
    number: of the domain in it, from 1.
    """

    whole: Dataset
    number: int

    def catalogue(self) -> pl.DataFrame:
        """The items of the domain in order of their new index."""
        items = self.whole.catalogue().slice(self.whole.first_item(self.number) - 1, self.items)
        return items.with_columns(item_index=pl.int_range(1, self.items + 1, dtype=pl.Int32))


def one_domain(dataset: Dataset, number: int) -> DomainView:
    """The events of one domain.

    Args:
        dataset: the whole.
        number: of the domain, from 1.
    """
    tables = {part: _of_domain(dataset, dataset.part(part), number) for part in PARTS}
    return DomainView(dataset.path, _manifest(dataset, tables, number), **tables, whole=dataset, number=number)


def _of_domain(dataset: Dataset, table: EventTable, number: int) -> EventTable:
    own = table.domain == number
    before = np.concatenate([[0], np.cumsum(own)])
    item = table.item_index[own]
    known = item > 0
    return EventTable(
        user_offsets=before[table.user_offsets],
        item_index=np.where(known, item - (dataset.first_item(number) - 1), 0).astype(np.int32),
        domain=np.ones(len(item), dtype=np.int16),
        timestamp=table.timestamp[own],
    )


def _manifest(dataset: Dataset, tables: dict[Part, EventTable], number: int) -> Manifest:
    """That of the whole, with this domain's numbers and a fingerprint of its own."""
    whole, name = dataset.manifest, dataset.domains[number - 1]
    parts = {
        part: PartCounts(
            events=tables[part].events,
            users=int(np.count_nonzero(np.diff(tables[part].user_offsets))),
            new_users=counts.new_users,
            cases=tables[part].events if counts.cases else 0,
            domains={name: counts.domains[name]},
        )
        for part, counts in whole.parts.items()
    }
    changes = {
        "domains": (name,),
        "items_per_domain": {name: whole.items_per_domain[name]},
        "parts": parts,
        "fingerprint": _of(whole.fingerprint, name),
        "training_fingerprint": _of(whole.training_fingerprint, name),
    }
    return whole.model_copy(update=changes)


def _of(fingerprint: str, domain: str) -> str:
    return hashlib.sha256(f"{fingerprint} {domain}".encode()).hexdigest()
