"""Event files -> histories in Redis, in bulk."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, TypeVar

import polars as pl
from redis.exceptions import ConnectionError, RedisError, TimeoutError  # noqa: A004 (redis-py's are no OSErrors)

from formats.errors import WorkFailed
from formats.event_files import read_event_files
from formats.events import EventRows, EventSource
from service.history.keys import history_key
from service.history.ordering import UserEvents, order_events
from service.history.packed import pack
from service.history.seen import seen_of
from service.redis_client.client import open_redis
from service.scripts import Client

PIPELINE = 1000  # users per round trip
SAMPLE = 1000  # users whose memory Redis is asked for
TIMEOUT_S = 30.0
DAY_S = 86_400

Result = TypeVar("Result")


@dataclass(frozen=True)
class LoadOptions:
    """How to load.

    columns: standard name -> the files' name, where they differ.
    kinds: the event kinds that count.
    keep_repeats: whether a user's later events of an item are kept too.
    max_bad: share of malformed rows up to which the work goes on.
    history_limit: newest events kept per user; of older ones it is kept which items they were of.
    history_days: days from now on after which Redis forgets a history.
    """

    columns: Mapping[str, str]
    kinds: Sequence[str]
    keep_repeats: bool
    max_bad: float
    history_limit: int
    history_days: int


@dataclass(frozen=True)
class Loaded:
    """What was loaded. Bytes per user as Redis counts them (key, value and its own book-keeping), of a sample."""

    users: int
    events: int
    malformed: int
    examples: tuple[str, ...]
    bytes_per_user: float
    seconds: float

    @property
    def events_per_second(self) -> float:
        """From the first byte read to the last written."""
        return self.events / self.seconds


def load_histories(
    sources: Sequence[EventSource], url: str, options: LoadOptions, progress: Callable[[str], None] = lambda _: None
) -> Loaded:
    """Store the history of every user of these files, in place of what was stored for them.

    Raises:
        WorkFailed: a file cannot be read, too many rows are malformed, or Redis is away or full.
        WrongUse: `url` is no address of a Redis.
    """
    start = time.monotonic()
    # Before the long work: whether there is a Redis to take what comes out of it.
    asyncio.run(_with_redis(url, _ping))

    def chosen(found: EventRows) -> pl.DataFrame:
        return found.good.filter(pl.col("event").is_in(list(options.kinds))).drop("event")

    rows = read_event_files(sources, options.columns, options.max_bad, chosen, progress)
    progress("sorting")
    malformed, examples = rows.malformed, rows.examples
    histories = order_events(rows.kept, keep_repeats=options.keep_repeats)
    del rows

    async def store(redis: Client) -> tuple[int, float, float]:
        events = await _write(redis, histories, options, progress)
        return events, time.monotonic() - start, await _memory_per_user(redis, histories.user_ids)

    events, seconds, memory = asyncio.run(_with_redis(url, store))
    return Loaded(len(histories.user_ids), events, malformed, examples, memory, seconds)


async def _with_redis(url: str, work: Callable[[Client], Coroutine[Any, Any, Result]]) -> Result:
    """Do something with Redis, with its failures told as ours."""
    async with open_redis(url, timeout_ms=TIMEOUT_S * 1000, connections=1) as redis:
        try:
            return await work(redis)
        except (ConnectionError, TimeoutError, OSError) as error:
            raise WorkFailed(f"Redis does not answer: {error}") from error
        except RedisError as error:
            raise WorkFailed(f"Redis refuses: {error}") from error


async def _ping(redis: Client) -> None:
    await redis.ping()


async def _write(redis: Client, histories: UserEvents, options: LoadOptions, progress: Callable[[str], None]) -> int:
    """Store all; returns how many events that are."""
    spans = zip(histories.user_ids, pairwise([0, *histories.ends.tolist()]), strict=True)
    users, events = 0, 0
    while group := list(islice(spans, PIPELINE)):
        pipeline = redis.pipeline(transaction=False)
        for user_id, (first, end) in group:
            start = max(first, end - options.history_limit)
            newest, older = histories.events[start:end], histories.events[first:start]
            value = pack(newest, seen_of(older["item_hash"]))
            pipeline.set(history_key(user_id), value, ex=options.history_days * DAY_S)
            events += len(newest)
        await pipeline.execute()
        users += len(group)
        progress(f"writing: {users:,} of {len(histories.user_ids):,} users")
    return events


async def _memory_per_user(redis: Client, user_ids: Sequence[str]) -> float:
    sample = user_ids[:: max(1, len(user_ids) // SAMPLE)][:SAMPLE]
    pipeline = redis.pipeline(transaction=False)
    for user_id in sample:
        pipeline.memory_usage(history_key(user_id))
    sizes: list[int] = [size for size in await pipeline.execute() if size]
    return sum(sizes) / max(1, len(sizes))
