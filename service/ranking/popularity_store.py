"""Popularity in Redis, one domain at a time: counts by item and day, the latest changes for readers, and the seed.

    syncrec:popularity:{domain}           hash    item id -> counts by day, packed as count.lua says
    syncrec:popularity-changes:{domain}   stream  the latest changes, numbered without a gap
    syncrec:popularity-writers:{domain}   hash    writer -> number of its last change, so that none counts twice
    syncrec:popularity-seed:{domain}      string  `service.ranking.seed.Seed`

A reader loads all counts once and follows the changes from there. Each item's counts carry the number of the last change
in them, so the load need not be of one moment: a change that an item's counts hold already is not added again.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from service.ranking.decay import DecayedCounts
from service.ranking.seed import Seed
from service.scripts import Call, Client, Script
from service.tags import hash_tag

MAX_ITEMS = 500_000  # of a domain; about 100 bytes each
CHANGES = 2_000  # kept; a reader that falls behind further loads everything again
CHANGE_SIZE = 200  # most items and days of one change, so that no script runs long
PAGE = 500  # items read at once, so that no request waits long for it
NEGLIGIBLE = 0.01  # events, at the longest half-life
NEARLY_FULL, TIDIED = 0.9, 0.75

COUNT = np.dtype([("day", "<u2"), ("count", "<u4")])
NUMBER_BYTES = 6

# item id, UTC day since 1970, how many
Change = list[tuple[str, int, int]]
_decode_change = msgspec.msgpack.Decoder(Change).decode


@dataclass
class Loaded:
    """A domain's counts, and how far the changes are in them.

    number: of the last change seen, 0 if there was none. in_row: of the last change in each row that was loaded.
    packed: what was read, by item id, until `tidy`.
    """

    counts: DecayedCounts
    number: int
    in_row: dict[str, int]
    packed: dict[str, bytes]


class PopularityStore:
    """Reads and writes. Every method raises RedisError, OSError or TimeoutError when Redis does not answer."""

    def __init__(self, redis: Client) -> None:
        # redis-py's types answer for every way to set a client up; ours gives bytes.
        self._redis: Any = redis
        self._count = Script("service.ranking", "count.lua")
        self._forget = Script("service.ranking", "forget.lua")

    async def count(self, writer: str, changes: Mapping[str, tuple[int, Change]], today: int) -> list[str]:
        """Add one change per domain; sent again with the same number, it is added once.

        Args:
            writer: a name that no other writer ever has.
            changes: domain -> number of this writer's change, and the change, at most CHANGE_SIZE long.
            today: in days since 1970.

        Returns:
            The domains whose change is counted.
        """
        calls = [
            Call(
                (_key("", domain), _key("-changes", domain), _key("-writers", domain)),
                (writer, number, msgspec.msgpack.encode(change), today, MAX_ITEMS, CHANGES),
            )
            for domain, (number, change) in changes.items()
        ]
        answers = await self._count.run(self._redis, calls)
        return [domain for domain, answer in zip(changes, answers, strict=True) if not isinstance(answer, Exception)]

    async def plant(self, domain: str, seed: Seed) -> None:
        """Keep the seed of a domain that has none yet."""
        if not await self._redis.exists(_key("-seed", domain)):
            await self._redis.set(_key("-seed", domain), msgspec.msgpack.encode(seed), nx=True)

    async def load(self, domain: str, half_lives_days: Sequence[float], today: int) -> Loaded:
        """Read everything: the seed and all counts."""
        value = await self._redis.get(_key("-seed", domain))
        # Ids of a large catalogue take longer to number than a request may wait.
        counts = await asyncio.to_thread(_seeded, value, half_lives_days, today)
        newest = await self._redis.xrevrange(_key("-changes", domain), count=1)
        loaded = Loaded(counts, _number(newest[0]) if newest else 0, {}, {})
        cursor = None
        while cursor != 0:
            cursor, page = await self._redis.hscan(_key("", domain), cursor or 0, count=PAGE)
            # A hash that grows meanwhile may be given twice in parts.
            _add_page(loaded, {key.decode(): value for key, value in page.items() if key.decode() not in loaded.packed})
        return loaded

    async def follow(self, domain: str, loaded: Loaded) -> bool:
        """Add the changes since the last one.

        Returns:
            False where they are gone: it must be loaded again.
        """
        while True:
            # From the last one on, to see that there is no gap.
            found = await self._redis.xrange(_key("-changes", domain), f"{loaded.number}-0", count=100)
            if [_number(entry) for entry in found[:1]] != [loaded.number]:
                return not found and not loaded.number
            if len(found) == 1:
                return True
            for entry in found[1:]:
                _add_change(loaded, _number(entry), _decode_change(entry[1][b"change"]))
                loaded.number = _number(entry)

    async def tidy(self, domain: str, loaded: Loaded) -> None:
        """Remove from Redis the items that hardly count any more, and the least counted ones when it is nearly full."""
        removable = _removable(loaded)
        for start in range(0, len(removable), CHANGE_SIZE):
            pairs = [(item_id, loaded.packed[item_id]) for item_id in removable[start : start + CHANGE_SIZE]]
            await self._forget.run(self._redis, [Call((_key("", domain),), [part for pair in pairs for part in pair])])
        loaded.packed.clear()


def _seeded(value: bytes | None, half_lives_days: Sequence[float], today: int) -> DecayedCounts:
    if value is None:
        return DecayedCounts(half_lives_days, today)
    return msgspec.msgpack.decode(value, type=Seed).counts_on(today, half_lives_days)


def _removable(loaded: Loaded) -> list[str]:
    item_ids = list(loaded.packed)
    counts = loaded.counts.counts.max(axis=0)[loaded.counts.rows(item_ids)]
    order = np.argsort(counts)
    least = int(np.searchsorted(counts[order], NEGLIGIBLE))
    if len(item_ids) > NEARLY_FULL * MAX_ITEMS:
        least = max(least, len(item_ids) - int(TIDIED * MAX_ITEMS))
    return [item_ids[row] for row in order[:least].tolist()]


def _key(kind: str, domain: str) -> str:
    return f"syncrec:popularity{kind}:{hash_tag(domain)}"


def _number(entry: Any) -> int:
    return int(entry[0].split(b"-")[0])


def _add_page(loaded: Loaded, page: Mapping[str, bytes]) -> None:
    if not page:
        return
    entries = np.frombuffer(b"".join(value[NUMBER_BYTES:] for value in page.values()), dtype=COUNT)
    sizes = [(len(value) - NUMBER_BYTES) // COUNT.itemsize for value in page.values()]
    rows = np.repeat(loaded.counts.rows(list(page)), sizes)
    loaded.counts.add(rows, entries["day"].astype(np.int64), entries["count"].astype(np.float64))
    loaded.packed.update(page)
    loaded.in_row.update({item_id: int.from_bytes(value[:NUMBER_BYTES], "little") for item_id, value in page.items()})


def _add_change(loaded: Loaded, number: int, change: Change) -> None:
    counts = loaded.counts
    has_room = len(counts.item_ids) < MAX_ITEMS
    fresh = [
        (item_id, day, count)
        for item_id, day, count in change
        if loaded.in_row.get(item_id, 0) < number and (has_room or item_id in counts)
    ]
    if fresh:
        item_ids, days, of_day = zip(*fresh, strict=True)
        counts.add(counts.rows(item_ids), np.array(days), np.array(of_day, dtype=np.float64))
