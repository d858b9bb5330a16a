"""Trainings of a study as run folders: one that is finished is not done again, one that was stopped goes on."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from formats.errors import WrongUse
from training.baselines.per_domain_training import PerDomainTraining
from training.config import RunConfig
from training.dataset import Dataset
from training.loop import Training
from training.mixture import MIXTURE
from training.processes import Processes
from training.run import RUN, read_run, write_run
from training.served import choose_mixture, serves_mixture
from training.trainings import NothingToTrain, training_of

_FINISHED: Final = "finished"
AnyTraining = Training | PerDomainTraining | NothingToTrain


def train_piece(
    path: Path, config: RunConfig, dataset: Dataset, prepare: Callable[[AnyTraining], None] = lambda _: None
) -> None:
    """Train a run to its end, with its mixture if it serves one.

    Args:
        path: of the run.
        config: of the run.
        dataset: what it trains on.
        prepare: may change the training before its first step; it is called again where a stopped one goes on.
    Raises:
        WrongUse: there is a run of another config or dataset.
    """
    if (path / RUN).exists():
        _refuse_another(path, config, dataset)
    if (path / _FINISHED).exists():
        return
    print(f"training {path}", file=sys.stderr, flush=True)
    path.mkdir(parents=True, exist_ok=True)
    write_run(path, config, dataset)
    training = training_of(dataset, config, path, Processes(), lambda _: None)
    prepare(training)
    training.resume()
    training.train()
    if serves_mixture(config) and not (path / MIXTURE).exists():
        choose_mixture(path)
    (path / _FINISHED).touch()


def _refuse_another(path: Path, config: RunConfig, dataset: Dataset) -> None:
    former = read_run(path)
    if former.config != config or former.fingerprint != dataset.fingerprint:
        raise WrongUse(f"{path}: of a study with other arguments: name another folder with --work")
