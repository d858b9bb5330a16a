"""Events of many users -> one array, by user, then time, then a hash: the order in which the model saw them at training.

Events of one user at one time have no true order. `syncrec prepare` settles them by this hash, and a test holds both
orders equal: else the newest event of a stored history would be another one than at training.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.event_ties import item_hashes, tie_hashes, user_hashes
from formats.event_times import MICROSECONDS
from service.history.packed import EVENT, MAX_TIMESTAMP, Events


@dataclass(frozen=True)
class UserEvents:
    """Histories of many users, one after the other.

    user_ids: [users]. ends: where each user's events end in `events`, [users]. events: [events] of `packed.EVENT`.
    """

    user_ids: list[str]
    ends: NDArray[np.int64]
    events: Events


def order_events(rows: pl.DataFrame, *, keep_repeats: bool) -> UserEvents:
    """Put events in order.

    Args:
        rows: user_id, item_id, domain (categorical) and timestamp (microseconds), as `formats.events` reads them.
        keep_repeats: otherwise only a user's first event of an item stays, as in `syncrec prepare --repeats drop`.
            Exact repeats (same user, item and time) are dropped in any case.
    """
    time = rows["timestamp"].to_numpy()
    user, user_ids = _number(rows, ["user_id"])
    item, items = _number(rows, ["domain", "item_id"])
    of_user = user_hashes(user_id for (user_id,) in user_ids)
    of_item = item_hashes((domain, item_id) for domain, item_id in items)
    order = np.lexsort((tie_hashes(of_user[user], of_item[item], time), time, user))
    order = order[_is_first(*([user, item, time] if keep_repeats else [user, item]), order=order)]
    events = np.empty(len(order), dtype=EVENT)
    events["item_hash"] = of_item[item[order]]
    events["timestamp"] = np.clip(time[order] // MICROSECONDS, 0, MAX_TIMESTAMP)
    ends = np.cumsum(np.bincount(user[order], minlength=len(user_ids)))
    return UserEvents([user_id for (user_id,) in user_ids], ends, events)


def _number(rows: pl.DataFrame, columns: list[str]) -> tuple[NDArray[np.int64], list[tuple[str, ...]]]:
    """A number for each row's value of one or two categorical columns, [events], and the value of each number."""
    key = np.zeros(len(rows), dtype=np.uint64)
    for column in columns:
        key = key << np.uint64(32) | rows[column].to_physical().to_numpy()
    _, first, number = np.unique(key, return_index=True, return_inverse=True)
    values = rows[first].select(pl.col(column).cast(pl.String) for column in columns)
    return number, values.rows()


def _is_first(*keys: NDArray[np.int64], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which places of `order` are the first with their keys, [events]."""
    frame = pl.DataFrame({str(place): key[order] for place, key in enumerate(keys)})
    return frame.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy()
