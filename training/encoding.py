"""Event rows -> numbers: users, items and domains as codes that do not depend on the order of rows or files."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.errors import WorkFailed

MAX_DOMAINS: Final = np.iinfo(np.int16).max
# A table over all pairs of domain and item is the fastest way to number them; it may take this much per event.
_TABLE_ENTRIES_PER_EVENT: Final = 4


@dataclass(frozen=True)
class CodedEvents:
    """Events as arrays, and what their codes stand for.

    user, item: codes, int32 [events]. timestamp: microseconds UTC, int64 [events].
    user_ids: of each user code, sorted. item_ids, item_domain: of each item code, sorted by domain and id; item_domain
    is a position in `domains`, int16 [items]. domains: names, sorted.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp: NDArray[np.int64]
    user_ids: pl.Series
    item_ids: pl.Series
    item_domain: NDArray[np.int16]
    domains: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def domain(self) -> NDArray[np.int16]:
        """Position in `domains` of each event, [events]."""
        return self.item_domain[self.item]

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "CodedEvents":
        """The events at these positions, or where the mask is true."""
        return replace(self, user=self.user[rows], item=self.item[rows], timestamp=self.timestamp[rows])


def encode(rows: pl.DataFrame) -> CodedEvents:
    """Number users, domains and items of rows with user_id, item_id, domain (categorical) and timestamp.

    Raises:
        WorkFailed: more domains than fit, which means that another column was taken for the domain.
    """
    user_ids, user = _number(rows["user_id"])
    domains, domain = _number(rows["domain"])
    if len(domains) > MAX_DOMAINS:
        raise WorkFailed(f"{len(domains)} different domains: at most {MAX_DOMAINS}; is the right column the domain?")
    strings, item_string = _number(rows["item_id"])
    pairs, item = _distinct(domain.astype(np.int64) * len(strings) + item_string)
    return CodedEvents(
        user=user,
        item=item,
        timestamp=rows["timestamp"].to_numpy(),
        user_ids=user_ids,
        item_ids=strings.gather(pairs % max(len(strings), 1)),
        item_domain=(pairs // max(len(strings), 1)).astype(np.int16),
        domains=tuple(domains),
    )


def _number(column: pl.Series) -> tuple[pl.Series, NDArray[np.int32]]:
    """Distinct values of a categorical column, sorted as strings, and each row's position among them."""
    distinct = column.unique()
    names = pl.DataFrame({"name": distinct.cast(pl.String), "code": distinct.to_physical()}).sort("name")
    codes = names["code"].to_numpy()
    table = np.zeros(int(codes.max(initial=0)) + 1, dtype=np.int32)
    table[codes] = np.arange(len(codes), dtype=np.int32)
    return names["name"], table[column.to_physical().to_numpy()]


def _distinct(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Distinct keys, sorted, and each key's position among them."""
    size = int(keys.max(initial=-1)) + 1
    if size > _TABLE_ENTRIES_PER_EVENT * len(keys):
        distinct, position = np.unique(keys, return_inverse=True)
        return distinct, position.astype(np.int32)
    present = np.zeros(size, dtype=bool)
    present[keys] = True
    numbers = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present).astype(np.int64), numbers[keys]
