"""The whole path on one machine with the bundled sample: prepare, train, evaluate, export, load histories, serve, ask once.

Example:
  syncrec demo
  syncrec demo --check

Shows the command behind every step, then goes on serving until Ctrl-C. --check compares the answer with the sample and with
the checkpoint, stops everything and exits 0 or 1. Nothing is set up before and, unless --work names a folder, nothing stays.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import BinaryIO

import httpx

from formats.errors import StoppedByUser, WorkFailed, WrongUse
from service.children import child_process
from service.history.embedded import embedded_redis
from syncrec import cli
from syncrec.console import duration
from syncrec.demo_answer import Household, ask, choose_household, show_answer
from syncrec.demo_check import differences

PORT = 8000
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
# Sized for two cores: enough epochs that validation has stopped rising on the sample.
TRAINING = ("epochs=20", "patience=3", "validation_cases=1000")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--check", action="store_true", help="check the answer, stop, and exit 0 or 1")
    parser.add_argument("--port", type=int, help=f"port to serve on (default: {PORT}; with --check any free one)")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="a new folder that keeps dataset, run, models and Redis data"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; returns 1 if --check finds the answer wrong."""
    default_port = 0 if arguments.check else PORT
    # Looked at first: nobody wants to hear of a taken port after training.
    port = _free_port(default_port if arguments.port is None else arguments.port)
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a demo that is ended so cleans up as after Ctrl-C
        signal.signal(ending, signal.default_int_handler)
    steps = Steps(total=7)
    started = time.monotonic()
    with ExitStack() as stack:
        work = stack.enter_context(_work_folder(arguments.work))
        sample = files("syncrec") / "sample"
        events = stack.enter_context(as_file(sample / "events.csv.gz"))
        items = stack.enter_context(as_file(sample / "items.csv.gz"))
        dataset, run_folder, models = work / "dataset", work / "run", work / "models"
        steps.run("prepare", str(events), "--items", str(items), "--out", str(dataset))
        settings = [word for setting in TRAINING for word in ("--set", setting)]
        steps.run("train", str(dataset), "--out", str(run_folder), *settings)
        steps.run("evaluate", str(run_folder))
        steps.run("export", str(run_folder), "--out", str(models))
        redis = stack.enter_context(embedded_redis(work))
        steps.run("load-histories", str(events), "--redis", redis)
        url = f"http://127.0.0.1:{port}"
        steps.begin(f"syncrec serve --models {models} --redis {redis} --port {port}")
        server = stack.enter_context(_server(models, redis, port, work / "serve.log"))
        household = choose_household(events, items)
        steps.begin(f'POST {url}/recommend  {{"user_id": "{household.user_id}"}}')
        answer = ask(url, household)
        steps.end()
        print(show_answer(household, answer))
        if arguments.check:
            return _checked(household, answer, run_folder, models, started)
        _go_on(url, household, server, started)
    return 0


class Steps:
    """Headings: which step of how many, the command behind it, and how long it took."""

    def __init__(self, total: int) -> None:
        self.total, self.number, self.started = total, 0, 0.0

    def begin(self, text: str) -> None:
        """End the step before, and print the heading of the next."""
        self.end()
        self.number, self.started = self.number + 1, time.monotonic()
        print(f"\n[{self.number}/{self.total}] {text}", flush=True)

    def end(self) -> None:
        """Print how long the step took."""
        if self.number:
            print(f"      took {duration(time.monotonic() - self.started)}", flush=True)

    def run(self, *words: str) -> None:
        """Run a subcommand in this process.

        Raises:
            WorkFailed: it did not end well.
        """
        self.begin(f"syncrec {' '.join(words)}")
        try:
            code = cli.run_command(words[0], list(words[1:]))
        except StoppedByUser:
            raise KeyboardInterrupt from None  # what it saved goes with the folder
        if code:
            raise WorkFailed(f"syncrec {words[0]} ended with exit code {code}")


def _free_port(port: int) -> int:
    if not 0 <= port < 65536:
        raise WrongUse(f"--port {port}: must be 0 to 65535")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise WorkFailed(f"port {port} cannot be used ({error}): name another with --port") from error
        free: int = probe.getsockname()[1]
    return free


@contextmanager
def _work_folder(named: Path | None) -> Iterator[Path]:
    if named is None:
        with tempfile.TemporaryDirectory(prefix="syncrec-demo-") as folder:
            yield Path(folder)
        return
    if named.exists() and (not named.is_dir() or any(named.iterdir())):
        raise WrongUse(f"--work {named} exists already: name another folder or remove it first")
    named.mkdir(parents=True, exist_ok=True)
    yield named


@contextmanager
def _server(models: Path, redis: str, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-P", "-m", "syncrec", "serve"]
    command += ["--models", str(models), "--redis", redis, "--port", str(port)]
    with log.open("wb") as output, _child(command, output) as process:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", log)
        yield process


def _child(command: list[str], output: BinaryIO) -> AbstractContextManager[subprocess.Popen[bytes]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return child_process(command, STOP_TIMEOUT_S, stdout=output, stderr=output, env=environment)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            lines = log.read_text(errors="replace").splitlines() or ["it left no log"]
            raise WorkFailed(f"the service did not start: {lines[-1]}")
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.05)
    raise WorkFailed(f"the service is not ready after {START_TIMEOUT_S:.0f} s")


def _checked(household: Household, answer: dict[str, object], run_folder: Path, models: Path, started: float) -> int:
    found = differences(household, answer, run_folder, models)
    for line in found:
        print(f"check: {line}", file=sys.stderr)
    verdict = (
        "the answer is WRONG" if found else "the answer is right: known items, right domains, none bought before, "
    )
    detail = "" if found else "ranks 1 to k, falling scores, and what the checkpoint says"
    print(f"\ncheck: {verdict}{detail}; {duration(time.monotonic() - started)} in all")
    return 1 if found else 0


def _go_on(url: str, household: Household, server: subprocess.Popen[bytes], started: float) -> None:
    print(
        f"\nready after {duration(time.monotonic() - started)}, serving until Ctrl-C:\n"
        f"  {url}/docs      try every route in the browser\n"
        f"  {url}/metrics   Prometheus\n"
        f"  {url}/readyz    model, provider, Redis\n"
        f'  curl -s {url}/recommend -H \'content-type: application/json\' -d \'{{"user_id": "{household.user_id}", "k": 3}}\'',
        flush=True,
    )
    try:
        code = server.wait()
    except KeyboardInterrupt:
        print("\nstopped")
        return
    raise WorkFailed(f"the service ended by itself with exit code {code}")
