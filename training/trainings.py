"""The training that a config asks for."""

from collections.abc import Callable
from pathlib import Path

from training.baselines.config import PerDomainConfig
from training.baselines.per_domain_training import PerDomainTraining
from training.checkpoint import write_checkpoint
from training.config import LoopConfig, RunConfig
from training.dataset import Dataset
from training.evaluate import Validation
from training.loop import Progress, Training
from training.memory import bounded_memory
from training.methods import build_objective
from training.processes import Processes
from training.run import BEST


class NothingToTrain:
    """A run of a recommender that only remembers: scored once on validation; used like a `Training`."""

    def __init__(self, dataset: Dataset, config: RunConfig, path: Path) -> None:
        self.dataset, self.config, self.path = dataset, config, path

    def resume(self) -> None:
        """There is nothing to go back to."""

    def train(self) -> float:
        """Fit, and return the validation score.

        Raises:
            WorkFailed: the disk is full.
        """
        validation = Validation(self.dataset, self.config.validation_cases, self.config.seed)
        with bounded_memory():
            score = validation.score(build_objective(self.config, self.dataset))
        notes = {"fingerprint": self.dataset.fingerprint, "epoch": 0, "validation_ndcg_at_10": score}
        write_checkpoint(self.path / BEST, {}, notes)
        return score

    def position(self) -> str:
        """Where it stands, for a person."""
        return "before the end"

    def chosen(self) -> str:
        """What is kept, for a person."""
        return "nothing to train"


def training_of(
    dataset: Dataset, config: RunConfig, path: Path, processes: Processes, report: Callable[[Progress], None]
) -> Training | PerDomainTraining | NothingToTrain:
    """The training of a run."""
    if isinstance(config, PerDomainConfig):
        return PerDomainTraining(dataset, config, path, processes, report)
    if isinstance(config, LoopConfig):
        return Training(dataset, config, path, processes, report)
    return NothingToTrain(dataset, config, path)
