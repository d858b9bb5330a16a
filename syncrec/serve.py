"""Serve recommendations over HTTP: the newest bundle of a models folder, histories from Redis.

  syncrec serve --models models --redis redis://localhost:6379/0
  syncrec serve --models models --redis embedded --port 8080

Everything else is set by environment variables, see .env.example. SIGTERM and Ctrl-C finish the requests under way.
"""

import argparse
import logging
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from formats.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    import uvicorn

    from service.app import Service
    from service.settings import Settings

DRAIN_TIMEOUT_S = 10
# The supervisor kills a worker that does not answer this long; loading a large bundle can hold the interpreter.
WORKER_TIMEOUT_S = 60


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--models", type=Path, metavar="DIR", help="models folder (default: $SYNCREC_MODELS_DIR)")
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="redis://, rediss:// or unix:// URL, or embedded (default: $SYNCREC_REDIS_URL, else embedded)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or Ctrl-C."""
    from service.logs import set_up_logging
    from service.settings import read_settings

    if arguments.workers < 1:
        raise WrongUse(f"--workers {arguments.workers}: at least 1")
    settings = read_settings(models_dir=arguments.models, redis_url=arguments.redis)
    set_up_logging(settings.log_level)
    with ExitStack() as stack:
        listener = stack.enter_context(_bound(arguments.host, arguments.port))
        stack.enter_context(_signals_end_quietly())
        if arguments.workers == 1:
            return _serve_alone(settings, listener)
        return _serve_together(settings, listener, arguments.workers, stack)


def worker_app() -> "Service":
    """The application of one of several workers, which are configured through the environment."""
    from service.app import create_app
    from service.children import end_with_parent
    from service.logs import set_up_logging
    from service.settings import read_settings

    end_with_parent()
    settings = read_settings()
    set_up_logging(settings.log_level)
    return create_app(settings)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that has the port but takes no connections before there is somebody to answer them."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror as error:
        raise WrongUse(f"--host {host}: {error.strerror}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.set_inheritable(True)
    except OverflowError as error:
        listener.close()
        raise WrongUse(f"--port {port}: not between 0 and 65535") from error
    except OSError as error:
        listener.close()
        raise WorkFailed(f"port {port} of {host}: {error.strerror}; name another with --port") from error
    return listener


@contextmanager
def _signals_end_quietly() -> Iterator[None]:
    """Let a stop by signal end in exit code 0: after draining, uvicorn raises the signal once more."""

    def ignore(_number: int, _frame: FrameType | None) -> None:
        return

    before = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(app: "Service | str", workers: int) -> "uvicorn.Config":
    import uvicorn

    return uvicorn.Config(
        app,
        factory=isinstance(app, str),
        workers=workers,
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,  # 41 microseconds a request
        server_header=False,
        proxy_headers=False,  # nothing here depends on the client's address
        timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
        timeout_worker_healthcheck=WORKER_TIMEOUT_S,
    )


def _say_ready(settings: "Settings", listener: socket.socket) -> None:
    print(f"serving {settings.models_dir} on {_address(listener)} (try {_address(listener)}/docs)", flush=True)


def _serve_alone(settings: "Settings", listener: socket.socket) -> int:
    import uvicorn

    from service.app import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _say_ready(settings, listener)

    app = create_app(settings)
    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.WARNING)
    # A refused start is one line, the command's own.
    log.addFilter(lambda _: app.failed_start is None)
    try:
        Server(_config(app, workers=1)).run([listener])
    except SystemExit as error:
        if app.failed_start is None:
            raise WorkFailed("the service did not start; its log says why") from error
        raise app.failed_start from error
    return 0


def _serve_together(settings: "Settings", listener: socket.socket, workers: int, stack: ExitStack) -> int:
    from formats.bundle import newest_bundle
    from service.history.embedded import redis_at
    from service.settings import as_environment

    newest_bundle(settings.models_dir)  # a damaged bundle is one line here instead of one per worker
    url = stack.enter_context(redis_at(settings.redis_url, settings.data_dir))
    os.environ.update(as_environment(settings.model_copy(update={"redis_url": url})))
    # Before anything imports prometheus_client: whichever worker is scraped answers for all.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="syncrec-metrics-"))

    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    class Supervisor(Multiprocess):
        def init_processes(self) -> None:
            super().init_processes()
            if all(process.wait_until_ready(WORKER_TIMEOUT_S, self.should_exit) for process in self.processes):
                _say_ready(settings, listener)

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    supervisor = Supervisor(_config("syncrec.serve:worker_app", workers), [listener])
    supervisor.run()
    if any(process.process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise WorkFailed("a worker did not start; its log says why")
    return 0
