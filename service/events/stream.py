"""EventLog: rows into a Redis Stream, behind everybody's back: whoever has a row puts it down and goes on.

syncrec:event-log:{log}      stream   field `row` -> a row (`service.events.served`), in the order of arrival, until it is drained
syncrec:served-rows:{DAY}    hash     [experiment, variant, writer] -> rows that this process has been given of that day
"""

import asyncio
import logging
import os
from collections import Counter, deque
from typing import Any

import msgspec

from service.events.served import Row, Served, day_of, encode
from service.failures import REDIS_FAILURES, short_reason
from service.logs import Occasionally
from service.scripts import Client

log = logging.getLogger(__name__)

STREAM = "syncrec:event-log:{log}"
SERVED_ROWS = "syncrec:served-rows:"
SERVED_DAYS = 40
FIELD = "row"
BATCH = 500  # rows per round trip
DAY_S = 86_400

Arm = tuple[str | None, str | None]  # experiment, variant


def served_rows_key(day: str) -> str:
    """Where the rows of a day are counted."""
    return f"{SERVED_ROWS}{{{day}}}"


class EventLog:
    """Holds rows until Redis has them. `dropped`: rows by arm that it had no room for or could not write."""

    def __init__(self, redis: Client, *, queue_limit: int, stream_limit: int) -> None:
        """Args: rows that may wait here, above which new ones are dropped; about how many rows the stream keeps at most."""
        # redis-py's types answer for every way to set a client up; ours gives bytes.
        self._redis: Any = redis
        self._queue_limit, self._stream_limit = queue_limit, stream_limit
        self._waiting: deque[bytes] = deque()
        self._writer = os.urandom(8).hex()
        self._served: dict[str, Counter[Arm]] = {}
        self._uncounted: set[tuple[str, Arm]] = set()
        self._sending = asyncio.Lock()
        self._lines = Occasionally(60)
        self.dropped: Counter[Arm] = Counter()

    def put(self, row: Row) -> None:
        """Take a row. Never waits and never raises: what cannot be kept is counted as served and is missed in the log."""
        arm: Arm = (row.experiment, row.variant) if isinstance(row, Served) else (None, None)
        try:
            encoded, day = encode(row), day_of(row)
        except (ValueError, TypeError, OverflowError) as error:
            self._drop(arm, f"it cannot be written ({type(error).__name__})")
            return
        if isinstance(row, Served) and row.experiment is not None:
            self._served.setdefault(day, Counter())[arm] += 1
            self._uncounted.add((day, arm))
        if len(self._waiting) >= self._queue_limit:
            self._drop(arm, "too many wait for Redis")
        else:
            self._waiting.append(encoded)

    def waiting(self) -> int:
        """Rows that Redis does not have yet."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Send what has been put until now; what is not taken stays, in its order.

        Raises:
            RedisError, OSError, TimeoutError: no answer. Rows whose answer was lost are sent again, and may then be there twice.
        """
        async with self._sending:
            # First: of rows that are lost from here on, the count is known.
            await self._count()
            for _ in range(len(self._waiting) // BATCH + 1):
                await self._send()

    async def close(self, deadline_s: float) -> None:
        """Send what waits, for at most so many seconds; what is left then is dropped and told."""
        reason = "timeout"
        try:
            async with asyncio.timeout(deadline_s):
                await self.flush()
        except REDIS_FAILURES as error:
            reason = short_reason(error)
        if self._waiting:
            log.error("%d rows of the event log are lost at the end: Redis fails (%s)", len(self._waiting), reason)
            self._waiting.clear()

    async def _send(self) -> None:
        batch = [self._waiting[place] for place in range(min(BATCH, len(self._waiting)))]
        if not batch:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for row in batch:
            pipeline.xadd(STREAM, {FIELD: row}, maxlen=self._stream_limit, approximate=True)
        answers = await pipeline.execute(raise_on_error=False)
        # Redis may be full in the middle of a batch: those before are there.
        taken = next((place for place, answer in enumerate(answers) if isinstance(answer, Exception)), len(batch))
        for _ in range(taken):
            self._waiting.popleft()
        if taken < len(batch):
            raise answers[taken]

    async def _count(self) -> None:
        """Say how many rows this process has been given: totals, so that saying it twice does no harm."""
        if not self._uncounted:
            return
        sent, self._uncounted = self._uncounted, set()
        of_day: dict[str, dict[bytes, int]] = {}
        for day, arm in sent:
            field = msgspec.json.encode([*arm, self._writer])
            of_day.setdefault(day, {})[field] = self._served[day][arm]
        pipeline = self._redis.pipeline(transaction=False)
        for day, totals in of_day.items():
            pipeline.hset(served_rows_key(day), mapping=totals)
            pipeline.expire(served_rows_key(day), SERVED_DAYS * DAY_S)
        try:
            await pipeline.execute()
        except BaseException:
            self._uncounted |= sent
            raise
        for day in sorted(self._served)[:-2]:
            if all(day != other for other, _ in self._uncounted):
                del self._served[day]

    def _drop(self, arm: Arm, why: str) -> None:
        self.dropped[arm] += 1
        if self._lines.now("dropped") is not None:
            experiment, variant = arm
            log.error(
                "a row of the event log is dropped: %s; %d by now, of this arm %d",
                why,
                self.dropped.total(),
                self.dropped[arm],
                extra={"experiment": experiment, "variant": variant},
            )


async def served_rows(redis: Client, days: list[str]) -> dict[str, Counter[Arm]]:
    """How many rows each arm was served on these days, as all processes have said until now.

    Raises:
        RedisError, OSError, TimeoutError: no answer.
    """
    pipeline: Any = redis.pipeline(transaction=False)
    for day in days:
        pipeline.hgetall(served_rows_key(day))
    totals: dict[str, Counter[Arm]] = {}
    for day, found in zip(days, await pipeline.execute(), strict=True):
        for field, count in found.items():
            experiment, variant, _ = msgspec.json.decode(field, type=tuple[str, str, str])
            totals.setdefault(day, Counter())[experiment, variant] += int(count)
    return totals
