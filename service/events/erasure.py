"""Erasing a user from the event log: from the stream at once, on disk for good.

syncrec:erased-users:{log}   sorted set   BLAKE2b of a user id, by when it was erased (milliseconds since 1970)

Rows in the stream are looked for one by one: they are few, since they are drained every few seconds. What a replica still holds, or a drain
has in hand, is found by the mark: whoever drains looks here first, and writes what came before the erasure without its user. What had been written by then is rewritten by `service.events.erased_files`, which waits for those who drain, so that
no row slips through between them.

A recommendation stays as a row of nobody, without its lists: how many were served is still the count. An event goes.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import msgspec

from service.events.served import MAX_AHEAD_S, Row, Served, decode, encode, filed_at, milliseconds_of
from service.events.stream import FIELD, STREAM
from service.scripts import Client

ERASED_USERS = "syncrec:erased-users:{log}"
NOBODY = ""
DAY_MS = 86_400_000
PAGE = 1000

Erased = Mapping[bytes, int]  # hash of a user id -> milliseconds since 1970


def user_hash(user_id: str) -> bytes:
    """What is remembered of an erased user."""
    return blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=16, person=b"erased user").digest()


async def mark_erased(redis: Client, user_id: str, now: float) -> None:
    """Have a user's rows until now forgotten. now: seconds since 1970.

    Raises:
        RedisError, OSError, TimeoutError: no answer; asking again does no harm.
    """
    client: Any = redis
    await client.zadd(ERASED_USERS, {user_hash(user_id): int(now * 1000)})


async def erase_waiting(redis: Client, user_id: str, now: float) -> None:
    """Take a user out of the rows in the stream.

    Raises:
        RedisError, OSError, TimeoutError: no answer; asking again does no harm.
    """
    client: Any = redis
    erased, wanted = {user_hash(user_id): int(now * 1000)}, user_id.encode("utf-8", "surrogatepass")
    last = "-"
    while entries := await client.xrange(STREAM, last, "+", count=PAGE):
        for entry_id, fields in entries:
            raw = fields.get(FIELD.encode(), b"")
            if wanted in raw and (row := decode(raw)) is not None and (kept := without_erased(row, erased)) != row:
                if kept is not None:
                    await client.xadd(STREAM, {FIELD: encode(kept)})
                await client.xdel(STREAM, entry_id)
        last = b"(" + entries[-1][0]


async def erased_users(redis: Client) -> dict[bytes, int]:
    """Who is to be forgotten, and up to when.

    Raises:
        RedisError, OSError, TimeoutError: no answer.
    """
    client: Any = redis
    found = await client.zrange(ERASED_USERS, 0, -1, withscores=True)
    return {member: int(score) for member, score in found}


async def forget_marks(redis: Client, done: Erased) -> None:
    """Remove the marks that nothing can need any more, of those that are erased from disk.

    Raises:
        RedisError, OSError, TimeoutError: no answer.
    """
    client: Any = redis
    if not done:
        return
    # A row may have waited in the service for a while before it came into the stream.
    limit = max(done.values())
    oldest = await client.xrange(STREAM, count=1)
    if oldest:
        limit = min(limit, int(oldest[0][0].partition(b"-")[0]) - DAY_MS)
    await client.zremrangebyscore(ERASED_USERS, "-inf", limit)


def without_erased(row: Row, erased: Erased) -> Row | None:
    """The row as it may be written: itself, without its user, or not at all."""
    until = erased.get(user_hash(row.user_id)) if erased else None
    if until is None:
        return row
    if isinstance(row, Served):
        return _of_nobody(row) if filed_at(row) <= until else row
    return row if is_later(row.recommendation_id, int(row.timestamp * 1000), until) else None


def _of_nobody(row: Served) -> Served:
    return msgspec.structs.replace(row, user_id=NOBODY, lists=[])


def is_later(recommendation_id: str | None, timestamp_ms: int, until: int) -> bool:
    """Whether an event is surely of the time after the erasure: by our clock if it can be, else by the client's."""
    made = None if recommendation_id is None else milliseconds_of(recommendation_id)
    return made > until if made is not None else timestamp_ms > until + MAX_AHEAD_S * 1000
