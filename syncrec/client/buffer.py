"""EventBuffer: events are told without waiting, and go out in batches from a thread of their own."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self

from syncrec.client.asking import Event, as_json, encode
from syncrec.client.client import Client
from syncrec.client.errors import ClientError, NotReachable, RateLimited, Refused, TimedOut, Unavailable

log = logging.getLogger(__name__)

LARGEST_BATCH = 1000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
TOO_LARGE = 413
# Of these the next attempt may be another; a refused batch would be refused for ever, and all behind it would wait.
TEMPORARY = (NotReachable, TimedOut, RateLimited, Unavailable)


@dataclass(frozen=True)
class Dropped:
    """Events that the service will not get, and why."""

    events: tuple[Event, ...]
    reason: str


def _log_dropped(dropped: Dropped) -> None:
    log.warning("%d events dropped: %s", len(dropped.events), dropped.reason)


class EventBuffer:
    """Collects events from any thread and sends them, up to 1,000 at once, at least every `every_s`.

    What fails is sent again for as long as there is room: each event counts once by its `event_id`. Close the buffer before its
    client: what is in it goes out then.
    """

    def __init__(
        self,
        client: Client,
        *,
        capacity: int = 10_000,
        every_s: float = 1.0,
        timeout_s: float = 10.0,
        on_dropped: Callable[[Dropped], None] = _log_dropped,
    ) -> None:
        """Start the thread.

        Args:
            client: sends; may be used for other calls at the same time.
            capacity: events that may wait; the ones that come after are dropped.
            every_s: how long an event waits for company.
            timeout_s: for sending one batch, attempts and all.
            on_dropped: told of every event that is lost, from the thread that lost it; by default the log is.
        """
        self._client, self._capacity, self._every_s, self._timeout_s = client, capacity, every_s, timeout_s
        self._on_dropped = on_dropped
        self._waiting: deque[Event] = deque()  # the batch under way stays at the left until it is settled
        self._changed = threading.Condition()
        self._added = self._settled = self._wanted = 0  # events since the start; `_wanted`: settle so many at once
        self._close_by: float | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="syncrec-events", daemon=True)
        self._thread.start()

    def add(self, event: Event) -> bool:
        """Take an event to be sent; never waits.

        Returns:
            Whether there was room; `on_dropped` has been told if not.

        Raises:
            ValueError: it cannot be written as JSON.
        """
        encode(as_json(event))
        with self._changed:
            if self._close_by is not None or self._ended:
                lost = "the buffer is closed"
            elif len(self._waiting) >= self._capacity:
                lost = f"{self._capacity} events are waiting already"
            else:
                self._waiting.append(event)
                self._added += 1
                self._changed.notify_all()
                return True
        self._tell(Dropped((event,), lost))
        return False

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Send now what has been added; whether all of it was settled, sent or dropped, within the time."""
        with self._changed:
            self._wanted = self._added
            wanted = self._wanted
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._settled >= wanted, timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Send what is left, with this time for attempts to begin; drop what then remains, and end the thread."""
        with self._changed:
            if self._close_by is None:
                self._close_by = time.monotonic() + timeout_s
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._deliver(batch)
        except Exception:  # our bug, or a client closed too early: said, and nothing is left waiting for ever
            log.exception("the thread of the event buffer failed")
            self._give_up("the thread of the event buffer failed")

    def _next_batch(self) -> tuple[Event, ...]:
        """Up to 1,000 events once it is time for them; empty: the buffer is closed, and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._close_by is not None)
            self._changed.wait_for(self._is_urgent, self._every_s)
            return tuple(islice(self._waiting, LARGEST_BATCH))

    def _is_urgent(self) -> bool:
        return self._close_by is not None or self._settled < self._wanted or len(self._waiting) >= LARGEST_BATCH

    def _deliver(self, batch: tuple[Event, ...]) -> None:
        """Send a batch until it is settled, or until it is too late."""
        failures = 0
        while True:
            timeout_s = self._timeout_s if self._close_by is None else min(self._timeout_s, self._left_s())
            if timeout_s <= 0:
                self._give_up("the buffer was closed before they could be sent")
                return
            try:
                taken = self._client.send_events(batch, timeout=timeout_s)
            except TEMPORARY as error:
                failures += 1
                self._pause(error, failures)
            except Refused as error:
                if error.status == TOO_LARGE and len(batch) > 1:
                    batch = batch[: len(batch) // 2]  # the other half is still waiting behind it
                    continue
                self._settle(batch, [Dropped(batch, str(error))])
                return
            except ClientError as error:
                self._settle(batch, [Dropped(batch, str(error))])
                return
            else:
                self._settle(batch, [Dropped((batch[one.index],), one.reason) for one in taken.rejected])
                return

    def _settle(self, batch: tuple[Event, ...], dropped: list[Dropped]) -> None:
        for one in dropped:
            self._tell(one)
        with self._changed:
            for _ in batch:
                self._waiting.popleft()
            self._settled += len(batch)
            self._changed.notify_all()

    def _pause(self, error: ClientError, failures: int) -> None:
        longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failures)
        asked_s = error.retry_after_s if isinstance(error, Refused) else None
        pause_s = (asked_s or 0) + random.uniform(longest_s / 2, longest_s)
        with self._changed:
            if self._close_by is None:
                self._changed.wait_for(lambda: self._close_by is not None, pause_s)
                return
        time.sleep(max(0.0, min(pause_s, self._left_s())))

    def _left_s(self) -> float:
        assert self._close_by is not None
        return self._close_by - time.monotonic()

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._ended = True
            rest = tuple(self._waiting)
        if rest:
            self._settle(rest, [Dropped(rest, reason)])

    def _tell(self, dropped: Dropped) -> None:
        try:
            self._on_dropped(dropped)
        except Exception:  # the caller's bug: it must not end the thread that sends
            log.exception("on_dropped raised")
