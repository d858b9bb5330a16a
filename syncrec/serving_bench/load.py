"""The load generator, a program of its own: a `Load` as JSON on standard input, a `Measured` as JSON on standard output.

HTTP/1.1 over connections that stay open, on asyncio's protocols and on bytes, because it takes its processor time from the
same cores as the server. Closed loop: each connection asks again as soon as it is answered. Open loop: requests are due at
random times (Poisson) whether or not the server keeps up, and their latency counts from when they were due.
"""

import asyncio
import json
import math
import random
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import uvloop

from syncrec.serving_bench.cpu import cpu_seconds, machine_cpu_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

UNANSWERED_S = 10.0  # after the end, answers are still waited for so long
_LENGTH = re.compile(rb"content-length: *([0-9]+)", re.IGNORECASE)


@dataclass(frozen=True)
class Load:
    """What to send.

    port: of 127.0.0.1.
    users: u0 to u<users - 1> are asked for, drawn at random.
    key: the API key to send.
    concurrency: connections of the closed loop; of the open one, how many may wait for an answer at once.
    rate: requests per second of the open loop; 0 is the closed loop.
    warm_s, measure_s: first without counting, then counting.
    server, helpers: processes whose time is the server's, and processes that serve it (Redis).
    seed: of what is drawn.
    """

    port: int
    users: int
    key: str
    concurrency: int
    rate: float
    warm_s: float
    measure_s: float
    server: list[int]
    helpers: list[int]
    seed: int


@dataclass
class Measured:
    """What was counted.

    latencies_ms: of every good answer.
    errors: what else came of requests -> how many.
    seconds: that were counted.
    server_cpu_s, generator_cpu_s: processor time in them.
    others_cores: processors that were busy with neither server, helpers nor this program.
    """

    latencies_ms: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    server_cpu_s: float = 0.0
    generator_cpu_s: float = 0.0
    others_cores: float = 0.0

    def failed(self, what: str, count: int = 1) -> None:
        """Count requests that got no good answer."""
        self.errors[what] = self.errors.get(what, 0) + count


class Connection(asyncio.Protocol):
    """One connection, with one request under way at most."""

    def __init__(self, answered: Callable[["Connection", str], None]) -> None:
        """Prepare.

        Args:
            answered: is called after each answer, with this and the status; and with `closed` if the server hangs up.
        """
        self._answered = answered
        self._transport: asyncio.Transport
        self._received = b""
        self._is_closing = False
        self.since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        self._transport = transport  # type: ignore[assignment]  # a stream's transport writes

    def ask(self, request: bytes, since: float) -> None:
        """Send a request; `since` is kept for who measures."""
        self.since = since
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Tell of an answer once it is whole."""
        self._received = self._received + data if self._received else data
        head, _, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):  # there is more to come
            return
        self._received = b""
        self._answered(self, head[9:12].decode())

    def connection_lost(self, _: Exception | None) -> None:
        """Tell of it, unless it was us."""
        if not self._is_closing:
            self._answered(self, "closed")

    def close(self) -> None:
        """Hang up."""
        self._is_closing = True
        self._transport.close()


class _Run:
    """One measurement under way."""

    def __init__(self, load: Load) -> None:
        self.load, self.measured = load, Measured()
        self._random = random.Random(load.seed)
        self._requests = [request_bytes(f"u{number}", load.key) for number in range(load.users)]
        self._begin = self._end = math.inf
        self._due: deque[float] = deque()
        self._free: deque[Connection] = deque()
        self._connections: list[Connection] = []
        self._all_answered = asyncio.Event()

    async def measure(self) -> Measured:
        loop = asyncio.get_running_loop()
        for _ in range(self.load.concurrency):
            _, connection = await loop.create_connection(
                lambda: Connection(self._answered), "127.0.0.1", self.load.port
            )
            self._connections.append(connection)
        self._begin = time.perf_counter() + self.load.warm_s
        self._end = self._begin + self.load.measure_s
        sending = loop.create_task(self._closed_loop() if not self.load.rate else self._open_loop())
        await asyncio.sleep(self._begin - time.perf_counter())
        with self._processor_time():
            await asyncio.sleep(self._end - time.perf_counter())
        await sending
        for connection in self._connections:
            connection.close()
        return self.measured

    def _ask(self, connection: Connection, since: float) -> None:
        connection.ask(self._random.choice(self._requests), since)

    def _answered(self, connection: Connection, status: str) -> None:
        now = time.perf_counter()
        # Of a closed loop that counts which is answered in time; of an open loop, what was due in time, or those that wait
        # longest would be left out.
        if self._begin <= (connection.since if self.load.rate else now) < self._end:
            if status == "200":
                self.measured.latencies_ms.append(1000 * (now - connection.since))
            else:
                self.measured.failed(status)
        if status == "closed":
            self._connections.remove(connection)
            if connection in self._free:
                self._free.remove(connection)
            return
        if self.load.rate:
            self._free.append(connection)
            self._send_due()
        elif now < self._end:
            self._ask(connection, now)

    async def _closed_loop(self) -> None:
        for connection in self._connections:
            self._ask(connection, time.perf_counter())
        await asyncio.sleep(self._end - time.perf_counter())

    async def _open_loop(self) -> None:
        # Taken in turn, so that none is idle for so long that the server closes it.
        self._free.extend(self._connections)
        due = time.perf_counter()
        while due < self._end:
            await asyncio.sleep(due - time.perf_counter())
            # A timer is up to a millisecond late: send all that is due by now.
            while due <= time.perf_counter():
                self._due.append(due)
                due += self._random.expovariate(self.load.rate)
            self._send_due()
        self._all_answered.clear()
        self._send_due()
        try:
            async with asyncio.timeout(UNANSWERED_S):
                await self._all_answered.wait()
        except TimeoutError:
            self.measured.failed("unanswered", len(self._due) + len(self._connections) - len(self._free))

    def _send_due(self) -> None:
        while self._due and self._free:
            self._ask(self._free.popleft(), self._due.popleft())
        if len(self._free) == len(self._connections):
            self._all_answered.set()

    @contextmanager
    def _processor_time(self) -> "Iterator[None]":
        def now() -> tuple[float, float, float, float, float]:
            server, helpers = cpu_seconds(self.load.server), cpu_seconds(self.load.helpers)
            return time.perf_counter(), server, time.process_time(), helpers, machine_cpu_seconds()

        before = now()
        yield
        seconds, server, own, helpers, machine = (after - start for after, start in zip(now(), before, strict=True))
        self.measured.seconds, self.measured.server_cpu_s, self.measured.generator_cpu_s = seconds, server, own
        self.measured.others_cores = max(0.0, machine - server - own - helpers) / seconds


def request_bytes(user_id: str, key: str) -> bytes:
    """`POST /recommend` for a user, with all defaults, as it goes over the wire."""
    body = json.dumps({"user_id": user_id}).encode()
    head = f"POST /recommend HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\nx-api-key: {key}\r\n"
    return b"%bcontent-length: %d\r\n\r\n%b" % (head.encode(), len(body), body)


async def measure(load: Load) -> Measured:
    """Send a load and count."""
    return await _Run(load).measure()


def main() -> None:
    """Measure what standard input asks for."""
    load = Load(**json.load(sys.stdin))
    json.dump(asdict(uvloop.run(measure(load))), sys.stdout)


if __name__ == "__main__":
    main()
