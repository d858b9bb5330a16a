"""Event files -> histories in Redis, in bulk."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise

import polars as pl
import redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from formats.errors import WorkFailed, WrongUse
from formats.event_files import read_event_files
from formats.events import EventRows, EventSource
from service.history.keys import history_key
from service.history.ordering import UserEvents, order_events
from service.history.packed import pack
from service.history.seen import seen_of

PIPELINE = 1000  # users per round trip
SAMPLE = 1000  # users whose memory Redis is asked for
TIMEOUT_S = 30.0
DAY_S = 86_400


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
    """
    start = time.monotonic()
    with _connected(url) as client:

        def chosen(found: EventRows) -> pl.DataFrame:
            return found.good.filter(pl.col("event").is_in(list(options.kinds))).drop("event")

        rows = read_event_files(sources, options.columns, options.max_bad, chosen, progress)
        progress("sorting")
        malformed, examples = rows.malformed, rows.examples
        histories = order_events(rows.kept, keep_repeats=options.keep_repeats)
        del rows
        events = 0
        for written, count in _write(client, histories, options):
            events += count
            progress(f"writing: {written:,} of {len(histories.user_ids):,} users")
        seconds = time.monotonic() - start
        memory = _memory_per_user(client, histories.user_ids)
    return Loaded(len(histories.user_ids), events, malformed, examples, memory, seconds)


@contextmanager
def _connected(url: str) -> Iterator[redis.Redis]:
    """A connection that is there before the long work starts, with failures of any time told as ours."""
    try:
        client = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0))
    except ValueError as error:
        raise WrongUse(f"--redis: {error}") from error
    try:
        client.ping()
        yield client
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise WorkFailed(f"Redis does not answer: {error}") from error
    except RedisError as error:
        raise WorkFailed(f"Redis refuses: {error}") from error
    finally:
        client.close()


def _write(client: redis.Redis, histories: UserEvents, options: LoadOptions) -> Iterator[tuple[int, int]]:
    """Store all; yields users written so far and events written by the last round trip."""
    spans = zip(histories.user_ids, pairwise([0, *histories.ends.tolist()]), strict=True)
    written = 0
    while group := list(islice(spans, PIPELINE)):
        pipeline = client.pipeline(transaction=False)
        events = 0
        for user_id, (first, end) in group:
            start = max(first, end - options.history_limit)
            newest, older = histories.events[start:end], histories.events[first:start]
            value = pack(newest, seen_of(older["item_hash"]))
            pipeline.set(history_key(user_id), value, ex=options.history_days * DAY_S)
            events += len(newest)
        pipeline.execute()
        written += len(group)
        yield written, events


def _memory_per_user(client: redis.Redis, user_ids: Sequence[str]) -> float:
    sample = user_ids[:: max(1, len(user_ids) // SAMPLE)][:SAMPLE]
    pipeline = client.pipeline(transaction=False)
    for user_id in sample:
        pipeline.memory_usage(history_key(user_id))
    sizes: list[int] = [size for size in pipeline.execute() if size]
    return sum(sizes) / max(1, len(sizes))
