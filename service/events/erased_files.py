"""Erasing users from what has been written: the files of the event log and of the roll-up, rewritten while nobody else is in there."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from service.events.erasure import NOBODY, Erased, is_later, user_hash
from service.events.files import SCHEMAS, TABLES, Table, alone, day_folder, days, parts, write_parquet
from service.events.served import milliseconds_of


def erase_from_disk(out: Path, erased: Erased) -> int:
    """Rewrite the files that hold erased users, and their roll-ups.

    Returns:
        How many rows were changed.

    Raises:
        WorkFailed: a file cannot be written; what was done so far is done, and doing it again does no harm.
    """
    changed = 0
    with alone(out):
        for table in TABLES:
            for day in days(out, table):
                for file in parts(day_folder(out, table, day)):
                    changed += _rewrite(file, table, erased)
        for day in days(out, "rollup"):
            file = day_folder(out, "rollup", day) / "users.parquet"
            if file.exists():
                changed += _rewrite_users(file, day, erased)
    return changed


def _rewrite(file: Path, table: Table, erased: Erased) -> int:
    places = _places(pq.ParquetFile(file).read(columns=["user_id"]), erased)
    if not places:
        return 0
    content = pq.ParquetFile(file).read()
    rows = content.take(places).to_pylist()
    gone = {place: row for place, row in zip(places, rows, strict=True) if _is_to_go(row, table, erased)}
    if not gone:
        return 0
    kept = _without(content, gone.keys())
    if table == "recommendations":
        nobodys = [row | {"user_id": NOBODY, "lists": []} for row in gone.values()]
        kept = pa.concat_tables([kept, pa.Table.from_pylist(nobodys, schema=SCHEMAS[table])])
    write_parquet(file, kept)
    return len(gone)


def _is_to_go(row: Mapping[str, Any], table: Table, erased: Erased) -> bool:
    until = erased[user_hash(row["user_id"])]
    if table == "recommendations":
        made = milliseconds_of(row["recommendation_id"])
        return made is None or made <= until
    since_1970 = pa.scalar(row["timestamp"], pa.timestamp("us")).value // 1000
    return not is_later(row["recommendation_id"], since_1970, until)


def _rewrite_users(file: Path, day: str, erased: Erased) -> int:
    """A roll-up's sums are of a whole day: they go if the day had begun."""
    content = pq.ParquetFile(file).read()
    begun = pa.scalar(f"{day}T00:00:00", pa.string()).cast(pa.timestamp("ms")).value
    gone = set(_places(content, {one: until for one, until in erased.items() if until >= begun}))
    if gone:
        write_parquet(file, _without(content, gone))
    return len(gone)


def _without(content: Any, places: Container[int]) -> Any:
    return content.filter(pa.array((place not in places for place in range(content.num_rows)), pa.bool_()))


def _places(content: Any, erased: Erased) -> list[int]:
    """The rows of erased users. Users are hashed once, however many rows they have."""
    users = [user for user in pc.unique(content["user_id"]).to_pylist() if user and user_hash(user) in erased]
    if not users:
        return []
    places: list[int] = pc.indices_nonzero(pc.is_in(content["user_id"], pa.array(users))).to_pylist()
    return places
