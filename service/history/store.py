"""HistoryStore: a user's history from Redis in one round trip, shared by the requests that arrive together.

Requests of one turn of the event loop are read with one MGET: redis-py costs about 100 microseconds a command, more than
parsing and answering together. No request ever holds a connection: each batch is read by a task of its own, so a
request that is cancelled or runs out of time only stops waiting, and nobody's reply can be left on a connection for
somebody else. A connection whose read timed out is closed by redis-py and not used again.

After some failures in a row, requests are told at once (`service.history.breaker`) instead of each waiting its time.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import cast

from redis.exceptions import RedisError

from service.errors import HistoryUnavailable
from service.failures import short_reason
from service.history.breaker import Breaker
from service.history.keys import history_key
from service.history.packed import Events, History, unpack
from service.redis_client.client import open_redis
from service.redis_client.cluster import ClusterClient
from service.scripts import Client

MAX_BATCH = 512

Reply = asyncio.Future[bytes | None]


class HistoryStore:
    """Reads histories; at most `connections` batches are under way at once, the rest waits and is read together."""

    def __init__(self, redis: Client, timeout_ms: float, connections: int) -> None:
        self._redis = redis
        # Of a cluster, each node is asked for its own keys, all at once, and may fail alone.
        self._get_many = redis.get_each if isinstance(redis, ClusterClient) else redis.mget
        self._timeout_s = timeout_ms / 1000
        self._free = connections
        self._waiting: dict[str, list[Reply]] = {}
        self._flush_is_due = False
        self._reads: set[asyncio.Task[None]] = set()
        self._breaker = Breaker(self.is_available)

    async def read(self, user_id: str) -> Events | None:
        """The newest stored events, oldest first; None when there are none.

        Raises:
            HistoryUnavailable: not there within the timeout, or unreadable.
        """
        history = await self.look_up(user_id)
        return None if history is None else history.events

    async def look_up(self, user_id: str) -> History | None:
        """The newest stored events and what the user had before them; None when there is nothing.

        Raises:
            HistoryUnavailable: not there within the timeout, unreadable, or not even asked for after many failures.
        """
        if self._breaker.is_open:
            raise HistoryUnavailable("circuit open")
        loop = asyncio.get_running_loop()
        reply: Reply = loop.create_future()
        self._waiting.setdefault(history_key(user_id), []).append(reply)
        self._flush_soon()
        timer = loop.call_later(self._timeout_s, self._expire, reply, loop.time() + self._timeout_s)
        try:
            value = await reply
        finally:
            timer.cancel()
        if value is None:
            return None
        try:
            return unpack(value)
        except ValueError:
            raise HistoryUnavailable("unreadable value") from None

    async def is_available(self) -> bool:
        """Whether Redis answers within the timeout."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError):
            return False
        return True

    async def close(self) -> None:
        """End the reads that are under way."""
        await self._breaker.close()
        for read in self._reads:
            read.cancel()
        await asyncio.gather(*self._reads, return_exceptions=True)

    def _expire(self, reply: Reply, due: float) -> None:
        loop = asyncio.get_running_loop()
        if reply.done():
            return
        if loop.time() - due > self._timeout_s / 10:
            # We are late ourselves (a pause of this process, more work than it can do), and Redis may have answered
            # long ago: what it sent is read after the timers. So there is a second chance, but not a third.
            loop.call_later(self._timeout_s, self._expire, reply, math.inf)
        else:
            self._breaker.failed()
            reply.set_exception(HistoryUnavailable("timeout"))

    def _flush_soon(self) -> None:
        if self._free and self._waiting and not self._flush_is_due:
            self._flush_is_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        batch = {}
        for key in list(self._waiting)[:MAX_BATCH]:
            # Who ran out of time or was cancelled while waiting is not read for any more.
            if replies := [reply for reply in self._waiting.pop(key) if not reply.done()]:
                batch[key] = replies
        if batch:
            self._free -= 1
            read = asyncio.get_running_loop().create_task(self._read(batch))
            self._reads.add(read)
            read.add_done_callback(self._finish)
        self._flush_soon()

    def _finish(self, read: asyncio.Task[None]) -> None:
        self._reads.discard(read)
        self._free += 1
        self._flush_soon()

    async def _read(self, batch: dict[str, list[Reply]]) -> None:
        try:
            values = cast("list[bytes | Exception | None]", await self._get_many(list(batch)))
        except (RedisError, OSError, TimeoutError) as error:
            values = [error] * len(batch)
        if all(isinstance(value, Exception) for value in values):
            self._breaker.failed()
        elif any(_still_waiting(batch.values())):  # an answer that nobody waits for any more came too late
            self._breaker.succeeded()
        for replies, value in zip(batch.values(), values, strict=True):
            for reply in _still_waiting([replies]):
                if isinstance(value, Exception):
                    reply.set_exception(HistoryUnavailable(short_reason(value)))
                else:
                    reply.set_result(value)


def _still_waiting(replies: Iterable[list[Reply]]) -> Iterator[Reply]:
    return (reply for group in replies for reply in group if not reply.done())


@asynccontextmanager
async def open_histories(url: str, timeout_ms: float, connections: int) -> AsyncIterator[HistoryStore]:
    """The store over the Redis at `url`, which need not be there yet, with connections that nothing else uses.

    Raises:
        WrongUse: `url` is no address of a Redis.
    """
    # Of one connection, to give it up. Requests have their own, shorter one; see HistoryStore.read.
    async with open_redis(url, timeout_ms=4 * timeout_ms, connections=connections + 1) as redis:  # one is_available's
        store = HistoryStore(redis, timeout_ms, connections)
        try:
            yield store
        finally:
            await store.close()
