"""Benchmarks: each prints one table, and writes JSON on request.

Example:
  syncrec bench prepare --rows 20000000
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

from formats.errors import WrongUse
from syncrec import bench_experiment, bench_gpu, bench_serve
from syncrec.console import table, write_json

if TYPE_CHECKING:
    from training.bench_prepare import PrepareMeasurement

MIB = 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of every benchmark; each imports what it measures only when it runs."""
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    _prepare_arguments(_add(benchmarks, "prepare", "raw events -> dataset: rows per second and peak memory", _prepare))
    serve = _add(benchmarks, "serve", "the service beside plain FastAPI, and mosec if there is one", bench_serve.run)
    serve.description = bench_serve.__doc__
    bench_serve.add_arguments(serve)
    gpu = _add(benchmarks, "gpu", "a bundle on a GPU: answers beside the CPU's, time per batch size", bench_gpu.run)
    gpu.description = bench_gpu.__doc__
    bench_gpu.add_arguments(gpu)
    experiment = _add(
        benchmarks, "experiment", "event log -> report: seconds and memory per step", bench_experiment.run
    )
    experiment.description = bench_experiment.__doc__
    bench_experiment.add_arguments(experiment)


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen benchmark."""
    return int(arguments.benchmark(arguments))


def _add(
    benchmarks: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    line: str,
    benchmark: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = benchmarks.add_parser(
        name, help=line, description=benchmark.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(benchmark=benchmark)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")
    return parser


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=20_000_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--events", type=Path, metavar="FILE", help="the events to repeat (default: the bundled sample)"
    )


def _prepare(arguments: argparse.Namespace) -> int:
    """Measure `syncrec prepare` on events repeated under distinct users.

    The repeated table is one CSV file in a temporary folder ($TMPDIR), about 35 bytes a row.

      syncrec bench prepare --rows 20000000 --events grocery.csv.gz
    """
    from training.bench_prepare import measure_prepare

    if arguments.rows < 1:
        raise WrongUse("--rows is at least 1")
    command = [sys.executable, "-m", "syncrec", "prepare"]
    with as_file(files("syncrec") / "sample" / "events.csv.gz") as sample:
        measured = measure_prepare(arguments.events or sample, arguments.rows, command)
    if str(arguments.json) != "-":
        print(_prepare_table(measured))
    if arguments.json is not None:
        write_json(arguments.json, {"benchmark": "prepare", **asdict(measured)})
    return 0


def _prepare_table(measured: "PrepareMeasurement") -> str:
    rows = [
        ["rows", f"{measured.rows:,}"],
        ["input", f"{measured.input_bytes / MIB:,.0f} MiB"],
        ["time", f"{measured.seconds:.2f} s"],
        ["processor time", f"{measured.cpu_seconds:.2f} s"],
        ["rows per second", f"{measured.rows_per_second:,.0f}"],
        ["peak memory", f"{measured.peak_rss_bytes / MIB:,.0f} MiB"],
        ["cores", f"{measured.cores}"],
        *([name, version] for name, version in measured.versions.items()),
    ]
    return table(["syncrec prepare", ""], rows)
