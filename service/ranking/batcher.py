"""MicroBatcher: one thread that owns a function of many requests, and a bounded queue of single ones before it.

Greedy: as soon as the thread is free it takes what is queued. Under load batches grow by themselves, without load
nobody waits. Who has left or run out of time is skipped. What the function needs may be opened by the same thread (`call`):
a CUDA graph belongs to the thread that recorded it.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import DeadlineExceeded, QueueFull

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


@dataclass(frozen=True)
class BatchTimes:
    """What became of one batch, for metrics. Seconds; `left`: requests still in the queue."""

    size: int
    left: int
    queued_s: tuple[float, ...]  # of each request
    run_s: float


@dataclass(frozen=True)
class Ran(Generic[Answer]):
    """An answer and what it took. Seconds in the queue and in the run of its batch."""

    answer: Answer
    queued_s: float
    run_s: float


@dataclass(eq=False)
class _Job(Generic[Item, Answer]):
    item: Item
    deadline: float  # on the clock of time.monotonic
    answer: "asyncio.Future[Ran[Answer]]"
    queued_at: float = field(default_factory=time.monotonic)


class MicroBatcher(Generic[Item, Answer]):
    """Use as an async context manager: the thread runs within it, and answers to that event loop."""

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Answer]],
        max_batch: int,
        max_wait_s: float,
        queue_limit: int,
        observe: Callable[[BatchTimes], None] = lambda _: None,
    ) -> None:
        self._run, self._observe = run, observe
        self._max_batch, self._max_wait_s, self._queue_limit = max_batch, max_wait_s, queue_limit
        self._queue: deque[_Job[Item, Answer]] = deque()
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)
        self._loop: asyncio.AbstractEventLoop

    async def __aenter__(self) -> "MicroBatcher[Item, Answer]":
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish what is queued, then end the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)  # a call may take long, and the event loop serves others

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._queue)

    async def submit(self, item: Item, deadline: float) -> Ran[Answer]:
        """What `run` makes of this item.

        Args:
            item: one place of a batch.
            deadline: on the clock of time.monotonic.
        Raises:
            QueueFull: at once, when too many wait already.
            DeadlineExceeded: the answer is not there at the deadline.
            Exception: whatever `run` raised for the batch.
        """
        job: _Job[Item, Answer] = _Job(item, deadline, self._loop.create_future())
        with self._wake:
            if len(self._queue) >= self._queue_limit:
                raise QueueFull
            self._queue.append(job)
            self._wake.notify()
        # Not asyncio.timeout, which costs 11 microseconds where this costs 2.
        timer = self._loop.call_later(deadline - time.monotonic(), _expire, job.answer)
        try:
            return await job.answer
        finally:
            timer.cancel()

    async def call(self, function: Callable[[], Result]) -> Result:
        """What a function returns or raises when the thread runs it, between two batches."""
        answer: asyncio.Future[Result] = self._loop.create_future()

        def run() -> None:
            try:
                result = function()
            except Exception as error:  # noqa: BLE001 (goes to the caller; the thread must live on)
                self._loop.call_soon_threadsafe(_fail, answer, error)
            else:
                self._loop.call_soon_threadsafe(_succeed, answer, result)

        with self._wake:
            self._calls.append(run)
            self._wake.notify()
        return await answer

    def _work(self) -> None:
        while (jobs := self._take()) is not None:
            # A caller may leave between here and the end of the run; its place is then computed for nobody.
            alive = [job for job in jobs if not job.answer.done() and job.deadline > time.monotonic()]
            if alive:
                self._answer(alive)

    def _take(self) -> list[_Job[Item, Answer]] | None:
        """The next jobs, after the calls that wait; None when it is time to end."""
        while call := self._next_call():
            call()
        with self._wake:
            if not self._queue:
                return None
            if self._max_wait_s:
                self._wake.wait_for(lambda: len(self._queue) >= self._max_batch or self._closing, self._max_wait_s)
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_batch))]

    def _next_call(self) -> Callable[[], None] | None:
        """Wait for something to do. The next call; None when it is something else."""
        with self._wake:
            self._wake.wait_for(lambda: self._calls or self._queue or self._closing)
            return self._calls.popleft() if self._calls else None

    def _answer(self, jobs: Sequence[_Job[Item, Answer]]) -> None:
        start = time.monotonic()
        outcomes: Sequence[Answer | Exception]
        try:
            outcomes = self._run([job.item for job in jobs])
        except Exception as error:  # noqa: BLE001 (goes to the callers; the thread must live on)
            outcomes = [error] * len(jobs)
        times = BatchTimes(len(jobs), len(self), tuple(start - job.queued_at for job in jobs), time.monotonic() - start)
        self._observe(times)
        # One wake-up of the event loop per batch, not per request.
        self._loop.call_soon_threadsafe(_settle, [job.answer for job in jobs], outcomes, times)


def _succeed(answer: "asyncio.Future[Result]", result: Result) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: "asyncio.Future[Result]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _expire(answer: "asyncio.Future[Ran[Answer]]") -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded())


def _settle(
    answers: Sequence["asyncio.Future[Ran[Answer]]"], outcomes: Sequence[Answer | Exception], times: BatchTimes
) -> None:
    for answer, outcome, queued_s in zip(answers, outcomes, times.queued_s, strict=True):
        if answer.done():
            continue
        if isinstance(outcome, Exception):
            answer.set_exception(outcome)
        else:
            answer.set_result(Ran(outcome, queued_s, times.run_s))
