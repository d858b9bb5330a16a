"""The items that a model knows, in the order of their item_index. Training events alone decide."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.exceptions import PolarsError

from formats.errors import WorkFailed
from training.encoding import CodedEvents

DESCRIPTIONS: Final = ("title", "category")


@dataclass(frozen=True)
class Catalogue:
    """What training knows.

    table: item_index, item_id, domain, popularity (training events) and, with an item table, title and category.
    domains: names of the domains with items, sorted. items_per_domain: in that order.
    item_index: of each item code, 0 where it is not in the catalogue, int32 [item codes].
    domain_number: of each domain code, from 1, 0 where it has no items, int16 [domain codes].
    """

    table: pl.DataFrame
    domains: tuple[str, ...]
    items_per_domain: tuple[int, ...]
    item_index: NDArray[np.int32]
    domain_number: NDArray[np.int16]


def make_catalogue(events: CodedEvents, popularity: NDArray[np.int64]) -> Catalogue:
    """Number the items with training events: by domain, by falling popularity, by item_id.

    Args:
        events: for its ids; its events are not looked at.
        popularity: training events of each item code, [item codes].
    """
    known = np.flatnonzero(popularity)
    # Item codes rise with domain and id, so a stable sort leaves equally popular items in the order of their ids.
    order = known[np.lexsort((-popularity[known], events.item_domain[known]))]
    item_index = np.zeros(len(popularity), dtype=np.int32)
    item_index[order] = np.arange(1, len(order) + 1, dtype=np.int32)
    per_domain = np.bincount(events.item_domain[order], minlength=len(events.domains))
    table = pl.DataFrame(
        {
            "item_index": item_index[order],
            "item_id": events.item_ids.gather(order),
            "domain": pl.Series(events.domains, dtype=pl.String).gather(events.item_domain[order]),
            "popularity": popularity[order],
        }
    )
    return Catalogue(
        table=table,
        domains=tuple(name for name, items in zip(events.domains, per_domain, strict=True) if items),
        items_per_domain=tuple(int(items) for items in per_domain if items),
        item_index=item_index,
        domain_number=(np.cumsum(per_domain > 0) * (per_domain > 0)).astype(np.int16),
    )


def read_item_table(file: Path) -> pl.DataFrame:
    """Read an item table: item_id, domain, and what it has of title and category, as strings.

    The first row of an item counts should it appear twice.

    Raises:
        WorkFailed: the file cannot be read or lacks a required column.
    """
    separator = "\t" if ".tsv" in file.suffixes else ","
    try:
        if file.suffix == ".parquet":
            table = pl.read_parquet(file, glob=False)
        else:
            table = pl.read_csv(file, infer_schema=False, separator=separator, glob=False)
    except (PolarsError, OSError) as error:
        raise WorkFailed(f"{file}: cannot be read as an item table: {str(error).strip().splitlines()[0]}") from error
    for column in ("item_id", "domain"):
        if column not in table.columns:
            raise WorkFailed(f"{file}: no column {column} in the header ({', '.join(table.columns)})")
    columns = ["item_id", "domain", *(name for name in DESCRIPTIONS if name in table.columns)]
    return table.select(pl.col(columns).cast(pl.String)).unique(["domain", "item_id"], keep="first")


def describe(table: pl.DataFrame, descriptions: pl.DataFrame) -> pl.DataFrame:
    """The catalogue's table with title and category, null where the item table has none."""
    described = table.join(descriptions, on=["domain", "item_id"], how="left").sort("item_index")
    missing = [name for name in DESCRIPTIONS if name not in described.columns]
    return described.with_columns(pl.lit(None, pl.String).alias(name) for name in missing)
