"""Breaker: once a store has failed a few times in a row, nobody waits for it until it answers again."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

FAILURES = 10  # in a row; a store that is away is found out by the requests of a few milliseconds
PAUSE_S = 0.2  # between two probes: with a probe's own time-out, the return is noticed well within a second


class Breaker:
    """Counts failures; when open, asks the store itself, in the background, and closes as soon as it answers."""

    def __init__(
        self, probe: Callable[[], Awaitable[bool]], failures: int = FAILURES, pause_s: float = PAUSE_S
    ) -> None:
        self._probe, self._most, self._pause_s = probe, failures, pause_s
        self._failures = 0
        self._probing: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether to fail at once instead of asking the store."""
        return self._probing is not None

    def succeeded(self) -> None:
        """The store answered."""
        self._failures = 0

    def failed(self) -> None:
        """The store did not answer, or not in time."""
        self._failures += 1
        if self._failures >= self._most and self._probing is None and not self._is_closed:
            self._probing = asyncio.get_running_loop().create_task(self._probe_until_it_answers())

    async def close(self) -> None:
        """End the probing, and begin none."""
        self._is_closed = True
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _probe_until_it_answers(self) -> None:
        is_back = False
        while not is_back:
            await asyncio.sleep(self._pause_s)
            # Whatever else goes wrong in a probe, without the next one this would stay open for ever.
            with suppress(Exception):
                is_back = await self._probe()
        self._failures = 0
        self._probing = None
