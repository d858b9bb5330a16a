"""How serving ends: not ready first, then no new connections, then the requests under way; one process or several.

uvicorn closes its connections as soon as it is told to end. What a client sends in that moment over a connection that was
open and idle is lost, and so is what waits in the listener's queue: of 3,000 requests at concurrency 32, some thirty.
"""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import multiprocess

from service.settings import read_settings

if TYPE_CHECKING:
    from service.app import Service  # the supervisor serves nothing and shall not load what serving needs

# A worker that does not answer this long is replaced; loading a large bundle can hold the interpreter.
WORKER_TIMEOUT_S = 60
# Whoever has connected and sent nothing yet may do so this long after the listener is closed.
FIRST_REQUEST_S = 1.0

log = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A server that loses no request that it accepted when it is told to end.

    SIGTERM: the application says that it drains, so that /readyz fails and each answer closes its connection, and for
    `notice_s` new connections are still taken, since whoever balances the load learns of it only by and by. Then it stops
    listening and answers what is under way; uvicorn's timeout_graceful_shutdown bounds that. SIGINT goes without the notice.
    """

    def __init__(self, config: uvicorn.Config, notice_s: float) -> None:
        super().__init__(config)
        self._notice_s = notice_s
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 (a signal handler's arguments)
        """Begin to end, or if that has begun, `end_at_once`."""
        if self._stop_at is not None:
            self.end_at_once(sig)
            return
        self._stop_at = time.monotonic()
        if not self.started:
            self.should_exit = True
            return
        self._announce()
        if sig == signal.SIGTERM:
            self._stop_at += self._notice_s

    def end_at_once(self, sig: int) -> None:
        """End the process by the signal."""
        signal.signal(sig, signal.SIG_DFL)
        signal.raise_signal(sig)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop listening; uvicorn asks every 100 ms."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, hear whoever got in before that, and let uvicorn do the rest."""
        self._announce()
        for listener, server in zip(sockets or [], self.servers, strict=True):
            await self._close(listener, server)
        log.info("no longer listening; %d connections left", len(self.server_state.connections))
        await self._wait_for_first_requests()
        await super().shutdown(sockets)

    def _announce(self) -> None:
        app: Service = self.config.loaded_app
        app.draining = True

    async def _close(self, listener: socket.socket, server: asyncio.Server) -> None:
        """Close a listener; who waits in its queue is taken in, unless another process still listens."""
        last = listener.dup()
        server.close()
        listener.close()
        # Nothing from the last look into the queue until the close: who comes in between would be cut off.
        waiting = []
        last.setblocking(False)
        while (connection := _accept(last)) is not None:
            waiting.append(connection)
        last.close()
        loop = asyncio.get_running_loop()
        for connection in waiting:
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> HttpToolsProtocol:
        return HttpToolsProtocol(self.config, self.server_state, self.lifespan.state)

    async def _wait_for_first_requests(self) -> None:
        deadline = time.monotonic() + FIRST_REQUEST_S
        while any(map(_is_unheard, self.server_state.connections)) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _accept(listener: socket.socket) -> socket.socket | None:
    try:
        connection, _ = listener.accept()
    except BlockingIOError:
        return None
    connection.setblocking(False)
    return connection


def _is_unheard(connection: object) -> bool:
    return isinstance(connection, HttpToolsProtocol) and connection.cycle is None


class Worker(multiprocess.Process):
    """One of several serving processes. It ends when its supervisor or the whole process group is told to, or both."""

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve; runs in the new process, which is configured through the environment."""
        self._server = _WorkerServer(self.config, read_settings().drain_notice_ms / 1000)
        super().target(sockets)


class _WorkerServer(DrainingServer):
    def end_at_once(self, sig: int) -> None:
        """Go on: Ctrl-C and systemd signal every process of a group, and then the supervisor does so once more."""


class Supervisor(multiprocess.Multiprocess):
    """Runs the workers, and ends them all as it is told to itself; by a second signal at once."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], say_ready: Callable[[], None]) -> None:
        super().__init__(config, sockets)
        self._say_ready = say_ready
        self._told: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle_exit)
        # uvicorn has no other way to give its supervisor a worker of one's own.
        multiprocess.Process = Worker  # type: ignore[misc]

    @property
    def was_cut_off(self) -> bool:
        """Whether a second signal ended the workers at once."""
        return len(self._told) > 1

    def init_processes(self) -> None:
        """Start the workers and say so when all of them serve."""
        super().init_processes()
        if self._are_ready():
            self._say_ready()

    def terminate_all(self) -> None:
        """Pass the signal on. Our own listeners go first, so that the last worker to close one knows that it is the last."""
        for listener in self.sockets:
            listener.close()
        if self._told == [signal.SIGINT]:
            for process in self.processes:
                if process.process.is_alive() and process.pid is not None:
                    os.kill(process.pid, signal.SIGINT)
        super().terminate_all()

    def _handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        self._told.append(sig)
        self.signal_queue.append(sig)
        if self.was_cut_off:
            for process in self.processes:
                process.process.kill()

    def _are_ready(self) -> bool:
        deadline = time.monotonic() + WORKER_TIMEOUT_S
        while not all(process.is_ready(timeout=1) for process in self.processes):
            if self._told or time.monotonic() > deadline or not all(each.process.is_alive() for each in self.processes):
                return False
            time.sleep(0.05)
        return True
