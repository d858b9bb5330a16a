"""Drain: the event log from Redis to Parquet. A row is acknowledged once its file survives a power cut, so that none is lost.

Whoever is killed in between leaves rows to the next one, who may write them a second time: rows carry ids, and duplicates change nothing.
Several drains may share the work; what one took and did not finish, another takes over after a while.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from redis.exceptions import ResponseError

from formats.errors import WorkFailed
from service.events.erasure import erased_users, without_erased
from service.events.files import Table, add_part, arrow_table, compact, retire, table_of, together, write_counts
from service.events.served import Row, day_of, decode
from service.events.stream import FIELD, SERVED_DAYS, STREAM, Arm, served_rows
from service.failures import REDIS_FAILURES, short_reason
from service.logs import Occasionally
from service.scripts import Client

log = logging.getLogger(__name__)

GROUP = "drain"
POLL_S = 0.25
PAUSE_S = 1.0  # after a failure of Redis
TIDY_S = 60.0
FIRST = "0-0"

Entry = tuple[bytes, dict[bytes, bytes] | None]  # None: the stream was cut off meanwhile


@dataclass(frozen=True)
class DrainOptions:
    """How to drain.

    out: folder of the event log.
    once: stop when nothing is left.
    retention_days: days of which recommendations and events are kept; None: all.
    batch_rows, every_s: a batch is written when it has so many rows, or after so long.
    claim_after_s: after which rows that somebody took and did not finish are taken over.
    """

    out: Path
    once: bool = False
    retention_days: int | None = None
    batch_rows: int = 5000
    every_s: float = 5.0
    claim_after_s: float = 60.0


@dataclass
class Drained:
    """What was done. unreadable: rows of another version, left in the stream; too_old: rows beyond the retention, dropped."""

    rows: int = 0
    files: int = 0
    unreadable: int = 0
    too_old: int = 0


class Drain:
    """Drains until it is told to stop, or once."""

    def __init__(
        self,
        redis: Client,
        options: DrainOptions,
        progress: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # redis-py's types answer for every way to set a client up; ours gives bytes.
        self._redis: Any = redis
        self._options, self._progress, self._clock = options, progress, clock
        self._consumer = socket.gethostname()
        self._cursor = FIRST
        self._counts: dict[str, Mapping[Arm, int]] = {}
        self._touched: set[tuple[Table, str]] = set()
        self._unreadable: set[bytes] = set()
        self._tidied = -TIDY_S
        self._lines = Occasionally(60)
        self.done = Drained()

    async def run(self, stop: asyncio.Event) -> Drained:
        """Drain.

        Raises:
            WorkFailed: a file cannot be written, and nothing of its batch is acknowledged; or, once, Redis does not answer.
        """
        while not stop.is_set():
            try:
                await self._make_group()
                while not stop.is_set():
                    left = await self._batch(stop)
                    await self._write_counts()
                    self._tidy()
                    if self._options.once and not left:
                        self._tidy(now=True)
                        return self.done
            except REDIS_FAILURES as error:
                if self._options.once:
                    raise WorkFailed(
                        f"Redis fails ({short_reason(error)}); what was not acknowledged is drained next time"
                    ) from error
                if self._lines.now("redis") is not None:
                    log.warning("drain: Redis fails (%s); trying again", short_reason(error))
                await asyncio.sleep(PAUSE_S)
        return self.done

    async def _make_group(self) -> None:
        try:
            await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def _batch(self, stop: asyncio.Event) -> bool:
        """Take rows, write them, acknowledge them. Returns whether there may be more."""
        entries, left = await self._take(stop)
        rows: list[tuple[bytes, Row]] = []
        gone: list[bytes] = []
        for entry_id, fields in entries:
            row = None if fields is None else decode(fields.get(FIELD.encode(), b""))
            if row is not None:
                rows.append((entry_id, row))
            elif fields is None:
                gone.append(entry_id)
            else:
                self._unreadable.add(entry_id)
                self.done.unreadable += 1
                log.error(
                    "row %s of the event log cannot be read; it stays there, for a newer version", entry_id.decode()
                )
        if rows:
            with together(self._options.out):
                self._write([row for _, row in rows], await erased_users(self._redis))
        if ids := [entry_id for entry_id, _ in rows] + gone:
            pipeline = self._redis.pipeline(transaction=False)
            pipeline.xack(STREAM, GROUP, *ids)
            pipeline.xdel(STREAM, *ids)
            await pipeline.execute()
            self._progress(f"{self.done.rows:,} rows, {self.done.files:,} files")
        return bool(entries) or left

    async def _take(self, stop: asyncio.Event) -> tuple[list[Entry], bool]:
        """Up to a batch of entries: first what others left, then what is new, waiting for it a while; and whether others left more."""
        options = self._options
        cursor, claimed, *_ = await self._redis.xautoclaim(
            STREAM, GROUP, self._consumer, int(options.claim_after_s * 1000), self._cursor, count=options.batch_rows
        )
        self._cursor = cursor.decode()
        entries: list[Entry] = [entry for entry in claimed if entry[0] not in self._unreadable]
        deadline = time.monotonic() + options.every_s
        while (missing := options.batch_rows - len(entries)) > 0:
            # Without BLOCK, which would hold the connection and outlast its time-out.
            answer = await self._redis.xreadgroup(GROUP, self._consumer, {STREAM: ">"}, count=missing)
            new = answer[0][1] if answer else []
            entries += new
            if not new and (options.once or stop.is_set() or time.monotonic() >= deadline):
                break
            if not new:
                await asyncio.sleep(POLL_S)
        return entries, self._cursor != FIRST

    def _write(self, rows: list[Row], erased: dict[bytes, int]) -> None:
        oldest = self._oldest()
        of_day: dict[tuple[Table, str], list[Row]] = {}
        for row in rows:
            if (kept := without_erased(row, erased)) is None:
                continue
            day = day_of(kept)
            if day < oldest:
                self.done.too_old += 1
            else:
                of_day.setdefault((table_of(kept), day), []).append(kept)
        for (table, day), of_one in sorted(of_day.items()):
            add_part(self._options.out, table, day, arrow_table(table, of_one))
            self.done.files += 1
        self._touched |= of_day.keys()
        self.done.rows += len(rows)

    async def _write_counts(self) -> None:
        today = datetime.fromtimestamp(self._clock(), UTC).date()
        days = [(today - timedelta(days=age)).isoformat() for age in range(SERVED_DAYS)]
        for day, counts in (await served_rows(self._redis, days)).items():
            if self._counts.get(day) != counts:
                write_counts(self._options.out, day, counts)
                self._counts[day] = counts

    def _tidy(self, *, now: bool = False) -> None:
        if not now and time.monotonic() < self._tidied + TIDY_S:
            return
        self._tidied = time.monotonic()
        compact(self._options.out, sorted(self._touched))
        self._touched.clear()
        retire(self._options.out, self._oldest())

    def _oldest(self) -> str:
        """The first day that is kept; every day sorts behind an empty text."""
        if self._options.retention_days is None:
            return ""
        return (
            datetime.fromtimestamp(self._clock(), UTC).date() - timedelta(days=self._options.retention_days)
        ).isoformat()
