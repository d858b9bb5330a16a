"""Write a run's best checkpoint as a bundle that the service loads: MODELS/<model_version>/.

Example:
  syncrec export grocery.run --out models

The ONNX graph is compared with the checkpoint on real histories first; a graph that differs never appears as a bundle.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from model.mixed_ranker import CROSS
from syncrec.console import write_json
from training.evaluate import Protocol, evaluate
from training.export import export
from training.run import EVALUATION, TrainedRun, open_trained
from training.served import MIXED, serves_mixture
from training.task import drops_repeats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder made by syncrec train")
    parser.add_argument("--out", type=Path, required=True, metavar="MODELS", help="models folder")
    parser.add_argument("--dataset", type=Path, help="where the dataset is now, if it was moved")


def run(arguments: argparse.Namespace) -> int:
    """Export; the test evaluation is made first if `syncrec evaluate` has not left it in the run."""
    trained = open_trained(arguments.run, arguments.dataset)
    bundle = export(trained, _evaluation(trained), arguments.out)
    print(f"{bundle.path}: checked against the checkpoint of epoch {trained.notes['epoch']}")
    return 0


def _evaluation(trained: TrainedRun) -> dict[str, Any]:
    file = trained.run.path / EVALUATION
    if file.exists():
        kept: dict[str, Any] = json.loads(file.read_text())
        served = MIXED if serves_mixture(trained.run.config) else CROSS
        if (kept.get("checkpoint_epoch"), kept.get("served")) == (trained.notes["epoch"], served):
            return kept
    result = evaluate(trained, Protocol("test", drops_repeats(trained.dataset)))
    write_json(file, result)
    return result
