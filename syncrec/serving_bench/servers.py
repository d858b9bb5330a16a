"""The servers under test, each a process of its own (or several) on a free port, over one Redis and one bundle."""

import http.client
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import formats
import syncrec
from formats.errors import WorkFailed
from service.access.keys import API_KEYS, setting_entry
from service.children import child_process
from syncrec.serving_bench.cpu import with_descendants
from syncrec.serving_bench.load import request_bytes
from syncrec.serving_bench.peer import FOLDER, REDIS_URL

OURS, PLAIN, MOSEC = "syncrec", "plain", "mosec"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0
# As `syncrec serve` runs uvicorn.
UVICORN: Final = (
    "--http",
    "httptools",
    "--loop",
    "uvloop",
    "--no-access-log",
    "--no-server-header",
    "--no-proxy-headers",
)
# Peers have no deadline. With ours, overload would end as 503 where theirs ends as waiting, and the two would not compare.
PATIENCE: Final = {"SYNCREC_REQUEST_TIMEOUT_MS": "30000"}


@dataclass(frozen=True)
class Server:
    """A server that answers. processes: all that its work is done in."""

    name: str
    port: int
    processes: list[int]


@dataclass(frozen=True)
class Shared:
    """What all servers get.

    models: the models folder; peers: the folder for `syncrec.serving_bench.peer`; logs: where each leaves its log.
    redis: URL.
    key: the API key that ours asks for; peers ignore it.
    workers: processes of ours and of plain.
    """

    models: Path
    peers: Path
    logs: Path
    redis: str
    key: str
    workers: int


@contextmanager
def our_server(shared: Shared) -> Iterator[Server]:
    """`syncrec serve` with its defaults, and a key to check."""
    variable, entry = setting_entry("bench", "read", shared.key)
    assert variable == API_KEYS
    command = [sys.executable, "-P", "-m", "syncrec", "serve", "--models", str(shared.models), "--redis", shared.redis]
    command += ["--workers", str(shared.workers)]
    settings = {variable: entry, "PYTHONPATH": our_path(), **PATIENCE}
    with _server(OURS, command, settings, shared) as server:
        yield server


@contextmanager
def plain_server(shared: Shared) -> Iterator[Server]:
    """`syncrec.serving_bench.plain` on uvicorn."""
    command = [sys.executable, "-P", "-m", "uvicorn", "syncrec.serving_bench.plain:app", *UVICORN]
    command += ["--workers", str(shared.workers)]
    environment = {**_of_peers(shared), "PYTHONPATH": our_path()}
    with _server(PLAIN, command, environment, shared) as server:
        yield server


@contextmanager
def mosec_server(shared: Shared, python: Path) -> Iterator[Server]:
    """`syncrec.serving_bench.mosec_peer`, run by another Python, which gets of ours only what a peer imports."""
    ours = shared.peers / "ours"
    ours.mkdir()
    for package in (formats, syncrec):
        folder = Path(str(package.__file__)).parent
        (ours / folder.name).symlink_to(folder)
    command = [str(python), "-P", "-m", "syncrec.serving_bench.mosec_peer", "--address", "127.0.0.1"]
    environment = {**_of_peers(shared), "PYTHONPATH": str(ours)}
    with _server(MOSEC, command, environment, shared) as server:
        yield server


def our_path() -> str:
    """PYTHONPATH with which another process of this Python finds what this one finds."""
    return os.pathsep.join(filter(None, sys.path))


def _of_peers(shared: Shared) -> dict[str, str]:
    return {FOLDER: str(shared.peers), REDIS_URL: shared.redis}


@contextmanager
def _server(name: str, command: Sequence[str], environment: Mapping[str, str], shared: Shared) -> Iterator[Server]:
    port = _free_port()
    log = shared.logs / f"{name}.log"
    # What is configured for another service does not reach this one.
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("SYNCREC_")}
    with (
        log.open("wb") as output,
        child_process(
            [*command, "--port", str(port)],
            STOP_TIMEOUT_S,
            stdout=output,
            stderr=output,
            env={**inherited, **environment},
        ) as process,
    ):
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(port, shared.key):
            if process.poll() is not None or time.monotonic() > deadline:
                raise WorkFailed(f"{name} did not start: {_last_line(log)}")
            time.sleep(0.1)
        yield Server(name, port, with_descendants(process.pid))


def _answers(port: int, key: str) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request_bytes("nobody", key))
            response = http.client.HTTPResponse(connection)
            response.begin()
            return response.status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it left no log")
