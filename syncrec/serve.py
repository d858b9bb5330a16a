"""Serve recommendations over HTTP: the newest bundle of a models folder, histories from Redis.

  syncrec serve --models models --redis redis://localhost:6379/0
  syncrec serve --models models --redis embedded --port 8080

Everything else is set by environment variables, see .env.example. Without an API key only this machine is served, see
docs/security.md. SIGTERM and Ctrl-C finish the requests under way; a second one does not wait for them.
"""

import argparse
import ipaddress
import logging
import os
import socket
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from formats.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    import uvicorn

    from service.app import Service
    from service.settings import Settings

log = logging.getLogger(__name__)


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
    from service.access.access import access_of
    from service.logs import set_up_logging
    from service.settings import read_settings

    if arguments.workers < 1:
        raise WrongUse(f"--workers {arguments.workers}: at least 1")
    settings = read_settings(models_dir=arguments.models, redis_url=arguments.redis)
    set_up_logging(settings.log_level)
    is_open = access_of(settings).is_open
    with ExitStack() as stack:
        listeners = [stack.enter_context(_bound(arguments.host, arguments.port, "--host", "--port"))]
        if settings.admin_port:
            admin = _bound(settings.admin_host, settings.admin_port, "SYNCREC_ADMIN_HOST", "SYNCREC_ADMIN_PORT")
            listeners.append(stack.enter_context(admin))
        if is_open and settings.allow_without_keys:
            log.warning("no API key is configured: everybody who reaches the service may do everything")
        elif is_open:
            _refuse_to_be_seen(listeners)
        if arguments.workers == 1:
            return _serve_alone(settings, listeners)
        return _serve_together(settings, listeners, arguments.workers, stack)


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


def _bound(host: str, port: int, host_name: str, port_name: str) -> socket.socket:
    """A socket that has the port but takes no connections before there is somebody to answer them.

    Args:
        host_name: what the host was given by, for errors; port_name likewise.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except socket.gaierror as error:
        raise WrongUse(f"{host_name} {host}: {error.strerror}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.set_inheritable(True)
    except OverflowError as error:
        listener.close()
        raise WrongUse(f"{port_name} {port}: not between 0 and 65535") from error
    except OSError as error:
        listener.close()
        raise WorkFailed(f"port {port} of {host}: {error.strerror}; name another with {port_name}") from error
    return listener


def _refuse_to_be_seen(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        host = listener.getsockname()[0]
        if not ipaddress.ip_address(host).is_loopback:
            raise WrongUse(
                f"without API keys only this machine may be served, not {host}: make one with "
                "`syncrec api-key --role read --name NAME` and set SYNCREC_API_KEYS, or SYNCREC_ALLOW_WITHOUT_KEYS=true"
            )


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(settings: "Settings", app: "Service | str", workers: int) -> "uvicorn.Config":
    import uvicorn

    from syncrec.serve_drain import WORKER_TIMEOUT_S

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
        timeout_graceful_shutdown=settings.drain_timeout_ms / 1000,  # type: ignore[arg-type]  # it is only waited for
        timeout_worker_healthcheck=WORKER_TIMEOUT_S,
    )


def _say_ready(settings: "Settings", listeners: list[socket.socket]) -> None:
    public, *admin = [_address(listener) for listener in listeners]
    hint = f" (try {public}/docs)" if settings.docs else ""
    beside = "".join(f", admin routes on {address}" for address in admin)
    print(f"serving {settings.models_dir} on {public}{beside}{hint}", flush=True)


def _serve_alone(settings: "Settings", listeners: list[socket.socket]) -> int:
    from service.app import create_app
    from syncrec.serve_drain import DrainingServer

    class Server(DrainingServer):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _say_ready(settings, listeners)

    app = create_app(settings)
    log = logging.getLogger("uvicorn.error")
    log.setLevel(logging.WARNING)
    # A refused start is one line, the command's own.
    log.addFilter(lambda _: app.failed_start is None)
    try:
        Server(_config(settings, app, workers=1), settings.drain_notice_ms / 1000).run(listeners)
    except SystemExit as error:
        if app.failed_start is None:
            raise WorkFailed("the service did not start; its log says why") from error
        raise app.failed_start from error
    return 0


def _serve_together(settings: "Settings", listeners: list[socket.socket], workers: int, stack: ExitStack) -> int:
    from service.history.embedded import redis_at
    from service.settings import as_environment

    url = stack.enter_context(redis_at(settings.redis_url, settings.data_dir))
    os.environ.update(as_environment(settings.model_copy(update={"redis_url": url})))
    # Before anything imports prometheus_client: whichever worker is scraped answers for all.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="syncrec-metrics-"))

    from uvicorn.config import STARTUP_FAILURE

    from syncrec.serve_drain import Supervisor

    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = _config(settings, "syncrec.serve:worker_app", workers)
    supervisor = Supervisor(config, listeners, lambda: _say_ready(settings, listeners))
    supervisor.run()
    if any(process.process.exitcode == STARTUP_FAILURE for process in supervisor.processes):
        raise WorkFailed("a worker did not start; its log says why")
    if supervisor.was_cut_off:
        raise WorkFailed("ended by a second signal; requests under way were cut off")
    return 0
