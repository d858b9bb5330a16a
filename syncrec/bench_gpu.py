"""Check the GPU's answers against the CPU's, and print what a batch takes in every way beside the card's floors.

  syncrec bench gpu --models models
  syncrec bench gpu --models models --json gpu.json
  syncrec bench gpu --models models --provider cpu

One process runs the newest bundle with CUDA, with CUDA graphs and with TensorRT if that is installed, on the batch sizes
that the service prepares. Exit 1 if there is no GPU, or if any list is not the CPU's up to nearly equal scores.
docs/gpu.md explains the table.
"""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from formats.errors import WorkFailed, WrongUse
from syncrec.console import ProgressLine, table, write_json

if TYPE_CHECKING:
    from service.bench_gpu import GpuBench, WayMeasured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--models", type=Path, required=True, metavar="DIR", help="models folder; its newest bundle is measured"
    )
    parser.add_argument(
        "--provider", choices=("gpu", "cpu"), default="gpu", help="cpu needs no GPU and measures none (default: gpu)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.5, metavar="S", help="for each batch size of each way (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    from formats.bundle import newest_bundle
    from service.bench_gpu import measure_gpu
    from service.settings import read_settings

    if not 0 < arguments.seconds <= 600:
        raise WrongUse("--seconds is above 0 and at most 600")
    progress = ProgressLine()
    try:
        measured = measure_gpu(
            newest_bundle(arguments.models), arguments.provider, read_settings(), arguments.seconds, progress.show
        )
    finally:
        progress.clear()
    if str(arguments.json) != "-":
        print(_report(measured))
    if arguments.json is not None:
        write_json(arguments.json, {"benchmark": "gpu", **asdict(measured)})
    if measured.differing:
        raise WorkFailed("not the CPU's answers: " + "; ".join(measured.differing))
    return 0


def _report(measured: "GpuBench") -> str:
    card = measured.card
    head = [
        f"{measured.model_version}: {measured.items:,} items, dim {measured.dim}, graph {measured.graph_bytes / 1e6:,.1f} MB",
        f"onnxruntime {measured.versions['onnxruntime']}, card: {'none' if card is None else card.name}",
    ]
    if card is not None and card.bandwidth_gb_s is not None:
        head.append(f"floors: {card.bandwidth_gb_s:,.0f} GB/s, {card.tflops} TFLOP/s in float32, by its data sheet")
    return "\n\n".join(["\n".join(head), _agreements(measured.ways), _times(measured)])


def _agreements(ways: "tuple[WayMeasured, ...]") -> str:
    rows = []
    for way in ways:
        same = way.agreement
        if way.problem is not None:
            rows.append([way.name, "", "", "", "", way.problem])
        elif same is not None:
            counts = [f"{count:,}" for count in (same.lists, same.near_ties, same.differing)]
            rows.append([way.name, *counts, f"{same.largest_score_difference:.1e}", f"loaded in {way.load_s:.1f} s"])
    header = ["answers beside the CPU's", "lists", "near-ties", "differ", "largest score difference", ""]
    return table(header, rows, left=(0, 5))


def _times(measured: "GpuBench") -> str:
    floor_of = {floor.rows: floor for floor in measured.floors}
    rows = []
    for way in measured.ways:
        for one in way.times:
            floor = floor_of.get(one.rows)
            floors = ["", ""] if floor is None else [f"{floor.memory_ms:.4f}", f"{floor.arithmetic_ms:.4f}"]
            rows.append(
                [way.name, str(one.rows), f"{one.p50_ms:.3f}", f"{one.p99_ms:.3f}", f"{one.users_per_s:,.0f}", *floors]
            )
    header = ["way", "batch", "p50 ms", "p99 ms", "users/s", "memory floor ms", "arithmetic floor ms"]
    return table(header, rows)
