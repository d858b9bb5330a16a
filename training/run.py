"""A run: the folder of one training, and the network in it.

<run>/
    run.json            config, dataset (path and fingerprint), domains, items per domain
    last.safetensors    everything to continue from
    best.safetensors    the network of the best validation so far
    log.jsonl           one line a step and one an epoch
    training.png        gaps, weights and validation over the steps
    evaluation.json     the test evaluation, once `syncrec evaluate` has made it
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from formats.errors import WorkFailed
from training.checkpoint import read_checkpoint
from training.config import RunConfig
from training.dataset import Dataset, open_dataset
from training.methods import build_objective, from_json, to_json
from training.objective import Objective

RUN, LAST, BEST, LOG = "run.json", "last.safetensors", "best.safetensors", "log.jsonl"
FIGURE, EVALUATION = "training.png", "evaluation.json"


@dataclass(frozen=True)
class Run:
    """A run that was read."""

    path: Path
    config: RunConfig
    dataset_path: Path
    fingerprint: str


@dataclass(frozen=True)
class TrainedRun:
    """A run with its dataset and the network of its best validation, in evaluation mode."""

    run: Run
    dataset: Dataset
    objective: Objective
    notes: dict[str, Any]


def write_run(path: Path, config: RunConfig, dataset: Dataset) -> None:
    """Write `run.json`."""
    content = {
        "config": to_json(config),
        "dataset": str(dataset.path.resolve()),
        "fingerprint": dataset.fingerprint,
        "domains": list(dataset.domains),
        "items_per_domain": list(dataset.items_per_domain),
    }
    (path / RUN).write_text(json.dumps(content, indent=2) + "\n")


def read_run(path: Path) -> Run:
    """Read `run.json`.

    Raises:
        WorkFailed: not a run.
    """
    file = path / RUN
    try:
        content = json.loads(file.read_text())
        config = from_json(content["config"], str(file))
        return Run(path, config, Path(content["dataset"]), content["fingerprint"])
    except (FileNotFoundError, NotADirectoryError) as error:
        raise WorkFailed(f"{path}: not a run: {RUN} is missing") from error
    except (KeyError, TypeError, ValueError) as error:
        raise WorkFailed(f"{file}: damaged: {error}") from error


def dataset_of(run: Run, path: Path | None = None) -> Dataset:
    """The dataset that a run was trained on, from `path` if it was moved.

    Raises:
        WorkFailed: it is not there, or it is another one.
    """
    dataset = open_dataset(path or run.dataset_path)
    if dataset.fingerprint != run.fingerprint:
        raise WorkFailed(
            f"{run.path} was trained on another dataset than {dataset.path}: "
            f"fingerprint {run.fingerprint[:12]}, not {dataset.fingerprint[:12]}"
        )
    return dataset


def load_state(objective: Objective, tensors: dict[str, Tensor], file: Path) -> None:
    """Put a checkpoint's tensors into the network.

    Raises:
        WorkFailed: they are of a network of other sizes.
    """
    try:
        objective.load_state_dict(tensors)
    except RuntimeError as error:
        raise WorkFailed(f"{file}: does not fit {RUN}: {str(error).splitlines()[-1].strip()}") from error


def open_trained(path: Path, dataset_path: Path | None = None) -> TrainedRun:
    """The best network of a run.

    Raises:
        WorkFailed: no run, no checkpoint yet, or another dataset.
    """
    run = read_run(path)
    dataset = dataset_of(run, dataset_path)
    objective = build_objective(run.config, dataset)
    tensors, notes = read_checkpoint(path / BEST)
    if notes["fingerprint"] != run.fingerprint:
        raise WorkFailed(f"{path / BEST}: is a checkpoint of another dataset: {notes['fingerprint'][:12]}")
    load_state(objective, tensors, path / BEST)
    return TrainedRun(run, dataset, objective.eval(), notes)
