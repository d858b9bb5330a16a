"""Domains trained one after the other, each a run of its own with its own best epoch, then put together.

<run>/
    run.json                       config, dataset, domains, as of every run
    domain-1/ domain-2/ ...        a run's files but run.json, of every domain in order
    best.safetensors               the best networks of all domains, once all are trained
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.baselines.config import PerDomainConfig
from training.checkpoint import read_checkpoint, write_checkpoint
from training.dataset import Dataset
from training.domain_view import one_domain
from training.loop import Progress, Stopped, Training
from training.processes import Processes
from training.run import BEST


class PerDomainTraining:
    """A run in progress; it is used like a `training.loop.Training`."""

    def __init__(
        self,
        dataset: Dataset,
        config: PerDomainConfig,
        path: Path,
        processes: Processes,
        report: Callable[[Progress], None],
    ) -> None:
        self.dataset, self.config, self.path = dataset, config, path
        self.processes, self.report = processes, report
        self.resuming = False
        self.best_epochs: dict[str, int] = {}

    def resume(self) -> None:
        """Go back to where the run was left.

        Raises:
            WorkFailed: when its turn comes, of a domain with a damaged checkpoint or one of another dataset.
        """
        self.resuming = True

    def train(self) -> float:
        """Train all domains to the end; returns the mean of their best validation scores.

        Raises:
            WorkFailed, Stopped: as `Training.train`.
        """
        scores = []
        for number, name in enumerate(self.dataset.domains, start=1):
            scores.append(self._train(number, name))
            if self.current.interrupted and number < len(self.dataset.domains):
                raise Stopped
        score = float(np.mean(scores))
        if self.processes.rank == 0:
            self._put_together(score)
        return score

    def position(self) -> str:
        """Where the training stands, for a person."""
        return f"in {self.current.dataset.domains[0]}, {self.current.position()}"

    def chosen(self) -> str:
        """Which epochs are kept, for a person."""
        return f"epochs {', '.join(f'{epoch} ({name})' for name, epoch in self.best_epochs.items())} are best"

    def _train(self, number: int, name: str) -> float:
        folder = self._folder(number)
        if self.processes.rank == 0:
            folder.mkdir(exist_ok=True)
        self.current = Training(
            one_domain(self.dataset, number),
            self.config.of_domain(number),
            folder,
            self.processes,
            lambda now: self.report(replace(now, part=name)),
        )
        if self.resuming:
            self.current.resume()
        score = self.current.train()
        self.best_epochs[name] = self.current.state.best_epoch
        return score

    def _put_together(self, score: float) -> None:
        tensors = {}
        for place in range(len(self.dataset.domains)):
            own, _ = read_checkpoint(self._folder(place + 1) / BEST)
            tensors.update({f"parts.{place}.{name}": values for name, values in own.items()})
        notes = {
            "fingerprint": self.dataset.fingerprint,
            "epoch": self.best_epochs,
            "validation_ndcg_at_10": score,
        }
        write_checkpoint(self.path / BEST, tensors, notes)

    def _folder(self, number: int) -> Path:
        return self.path / f"domain-{number}"
