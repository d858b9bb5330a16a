"""Measure the service beside what else one would write or take, in one run on one machine.

  syncrec bench serve
  syncrec bench serve --quick
  syncrec bench serve --models models --peer-python mosec/bin/python --json serve.json

All servers are processes of their own over one Redis, one bundle and the same users, and give the same answers, which is
checked first. They take turns in short rounds. docs/benchmarks.md explains the table.
"""

import argparse
import os
import platform
import secrets
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from formats.errors import WorkFailed, WrongUse
from syncrec.console import ProgressLine, table, write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from formats.bundle import Bundle
    from syncrec.serving_bench.rounds import Comparison, Round
    from syncrec.serving_bench.servers import Server

PRESETS = ("default", "paper")
EVENTS = 50
# Of what plain answers at most per second, in the open loop.
OPEN_SHARE = 0.5
OPEN_CONNECTIONS = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--models", type=Path, metavar="DIR", help="models folder; its newest bundle is served")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        action="append",
        help="without --models: a bundle with random weights of this preset's sizes (default: each in turn)",
    )
    parser.add_argument(
        "--items", type=int, default=20_000, metavar="N", help="of that bundle, in 4 domains (default: %(default)s)"
    )
    parser.add_argument("--users", type=int, default=2000, metavar="N", help="users in Redis (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="of every server and load (default: %(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of ours and of plain (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="a minute: `default`, two loads, three short rounds")
    parser.add_argument(
        "--peer-python",
        type=Path,
        metavar="PATH",
        help="a Python with mosec, onnxruntime, redis and orjson: mosec, too",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    for name, least in (("items", 400), ("users", 1), ("rounds", 1), ("workers", 1)):
        if getattr(arguments, name) < least:
            raise WrongUse(f"--{name} is at least {least}")
    if arguments.models is not None and arguments.preset:
        raise WrongUse("--preset makes a bundle of its own; --models names one")
    if sys.platform != "linux":
        raise WorkFailed("processor time is read from /proc, which is there on Linux only")
    _check_peer_python(arguments.peer_python)
    results = []
    with tempfile.TemporaryDirectory(prefix="syncrec-bench-") as folder:
        presets = arguments.preset or (PRESETS[:1] if arguments.quick else PRESETS)
        for number, preset in enumerate([None] if arguments.models else presets):
            work = Path(folder) / str(number)
            work.mkdir()
            results.append(_measured(arguments, preset, work, shown=str(arguments.json) != "-"))
    if arguments.json is not None:
        write_json(arguments.json, {"benchmark": "serve", "machine": machine(), "bundles": results})
    return 0


def machine() -> dict[str, Any]:
    """What this was measured on."""
    from importlib.metadata import version

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    packages = ("fastapi", "uvicorn", "pydantic", "redis", "onnxruntime")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }


def _measured(arguments: argparse.Namespace, preset: str | None, work: Path, shown: bool) -> dict[str, Any]:
    """One bundle under every load; the table is printed unless standard output is for JSON."""
    from service.history.embedded import embedded_redis
    from syncrec.serving_bench.data import store_users, write_for_peers
    from syncrec.serving_bench.rounds import Plan, Scenario, compared, rate_of_plain, run_rounds, summed_up
    from syncrec.serving_bench.same_answers import check_same_answers
    from syncrec.serving_bench.servers import Shared, mosec_server, our_server, plain_server

    progress = ProgressLine()
    progress.show("the bundle")
    bundle = _bundle(arguments, preset, work / "models")
    peers = work / "peers"
    peers.mkdir()
    catalog = write_for_peers(bundle, peers)
    with ExitStack() as stack:
        redis = stack.enter_context(embedded_redis(work))
        helper = store_users(redis, catalog, arguments.users, min(EVENTS, catalog.items))
        key = "bench-" + secrets.token_urlsafe(32)
        shared = Shared(bundle.path.parent, peers, work, redis, key, arguments.workers)
        progress.show("the servers start")
        servers: list[Server] = [stack.enter_context(start(shared)) for start in (our_server, plain_server)]
        if arguments.peer_python is not None:
            servers.append(stack.enter_context(mosec_server(shared, arguments.peer_python)))
        progress.show("their answers are compared")
        answer_s = check_same_answers(servers, key, arguments.users)
        warm_s, measure_s = (0.3, 1.0) if arguments.quick else (0.7, 2.5)
        count = 3 if arguments.quick else arguments.rounds
        plan = Plan(count, warm_s, measure_s, answer_s, arguments.users, key, [helper])
        loads: list[Scenario] = [Scenario(concurrency) for concurrency in ((1, 64) if arguments.quick else (1, 16, 64))]
        rounds = [one for load in loads for one in run_rounds(servers, load, plan, progress.show)]
        if not arguments.quick:
            load = Scenario(OPEN_CONNECTIONS, rate_of_plain(rounds, OPEN_SHARE))
            rounds += run_rounds(servers, load, plan, progress.show)
    progress.clear()
    summary, comparisons = list(summed_up(rounds)), list(compared(rounds))
    if shown:
        print(f"{bundle.manifest.model_version}: {catalog.items:,} items in {len(catalog.domains)} domains\n")
        print(_table(summary), *map(_line, comparisons), "", sep="\n")
    return {
        "model_version": bundle.manifest.model_version,
        "workers": arguments.workers,
        "rounds": [asdict(one) for one in rounds],
        "medians": [asdict(one) for one in summary],
        "ours_by_peer": [asdict(one) for one in comparisons],
    }


def _bundle(arguments: argparse.Namespace, preset: str | None, models: Path) -> "Bundle":
    from formats.bundle import newest_bundle

    if preset is None:
        return newest_bundle(arguments.models)
    from syncrec.serving_bench.synthetic_bundle import write_synthetic_bundle
    from training import config

    return write_synthetic_bundle(models, config.default() if preset == "default" else config.paper(), arguments.items)


def _check_peer_python(python: Path | None) -> None:
    if python is None:
        print("mosec is not measured: --peer-python names a Python that has it", file=sys.stderr)
        return
    imports = "import mosec, onnxruntime, numpy, redis, orjson"
    try:
        ended = subprocess.run([str(python), "-c", imports], capture_output=True, text=True, check=False)
    except OSError as error:
        raise WrongUse(f"--peer-python {python}: {error.strerror}") from error
    if ended.returncode:
        raise WorkFailed(f"--peer-python {python}: {ended.stderr.strip().splitlines()[-1]}")


def _table(summary: "Sequence[Round]") -> str:
    header = ["load", "server", "req/s", "p50 ms", "p95 ms", "p99 ms", "CPU us", "errors", "others' cores"]
    rows = [
        [
            one.load,
            one.server,
            f"{one.requests_per_s:,.0f}",
            f"{one.p50_ms:.1f}",
            f"{one.p95_ms:.1f}",
            f"{one.p99_ms:.1f}",
            f"{one.cpu_us:,.0f}",
            f"{sum(one.errors.values()):,}",
            f"{one.others_cores:.2f}",
        ]
        for one in summary
    ]
    return table(header, rows, left=(0, 1))


def _line(one: "Comparison") -> str:
    def spread(ratio: tuple[float, float, float]) -> str:
        return "{:.2f} ({:.2f} to {:.2f})".format(*ratio)

    start = f"{one.load}, syncrec / {one.peer}: CPU per request {spread(one.cpu_us)}"
    if not one.is_quiet:
        return f"{start}; no verdict on speed: others used {one.others_cores:.1f} cores"
    return f"{start}; req/s {spread(one.requests_per_s)}; p99 {spread(one.p99_ms)}"
