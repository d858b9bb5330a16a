"""Training: epochs, validation, early stopping; any step can be stopped after and continued from, bit for bit."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from formats.errors import WorkFailed
from training.batches import Batch, Batches
from training.checkpoint import optimizer_tensors, read_checkpoint, restore_optimizer, write_checkpoint
from training.config import LoopConfig
from training.dataset import Dataset
from training.evaluate import Validation
from training.memory import bounded_memory
from training.methods import build_objective
from training.objective import StepLosses
from training.processes import Processes
from training.run import BEST, LAST, LOG, load_state


@dataclass(frozen=True)
class Progress:
    """Where a training stands, after a step or (with `score`) after an epoch; `loss` is the epoch's mean so far.

    `part` says what of a run is being trained, where a run has parts that are trained one after the other.
    """

    epoch: int
    step: int
    steps: int
    loss: float
    events_per_second: float
    epoch_seconds_left: float
    score: float | None = None
    best_score: float | None = None
    best_epoch: int | None = None
    part: str | None = None


@dataclass
class _State:
    """What changes while training, besides tensors."""

    epoch: int = 1
    step: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    log_bytes: int = 0
    seconds: float = 0.0
    finished: bool = False


class Stopped(KeyboardInterrupt):
    """The run was stopped by Ctrl-C and is saved up to its last step."""


class Training:
    """A run in progress."""

    def __init__(
        self,
        dataset: Dataset,
        config: LoopConfig,
        path: Path,
        processes: Processes,
        report: Callable[[Progress], None],
    ) -> None:
        self.dataset, self.config, self.path = dataset, config, path
        self.processes, self.report = processes, report
        self.objective = build_objective(config, dataset)
        self.optimizer = torch.optim.Adam(self.objective.parameters(), lr=config.learning_rate, fused=True)
        self.batches = Batches(
            dataset,
            config.max_history + 1,
            config.batch_windows,
            config.every_window,
            config.seed,
            config.candidates or None,
        )
        self.validation = Validation(dataset, config.validation_cases, config.seed)
        self.state = _State()
        self.interrupted = False  # by Ctrl-C after the last step of an epoch, which is then finished all the same
        self.now: Progress

    def resume(self) -> None:
        """Go back to where the run was left; to the beginning, if that was before its first checkpoint.

        Raises:
            WorkFailed: a damaged checkpoint, or one of another dataset.
        """
        if not (self.path / LAST).exists():
            return
        tensors, notes = read_checkpoint(self.path / LAST)
        if notes.pop("fingerprint") != self.dataset.fingerprint:
            raise WorkFailed(f"{self.path / LAST}: is a checkpoint of another dataset than {self.dataset.path}")
        of_objective = {name: t for name, t in tensors.items() if not name.startswith("optimizer/")}
        load_state(self.objective, of_objective, self.path / LAST)
        restore_optimizer(self.optimizer, self.objective, tensors)
        self.state = _State(**notes)
        if self.processes.rank == 0 and (self.path / LOG).exists():
            # Steps after the checkpoint are taken again, and logged again.
            with (self.path / LOG).open("r+b") as log:
                log.truncate(min(self.state.log_bytes, log.seek(0, os.SEEK_END)))

    def train(self) -> float:
        """Train to the end; returns the best validation score.

        Raises:
            WorkFailed: a loss is not finite, or the disk is full; the last checkpoint stays as it was.
            Stopped: after Ctrl-C, once the step is done and saved. A second Ctrl-C does not wait for that.
        """
        state, self.clock = self.state, time.monotonic()
        if not (self.path / LAST).exists():
            if self.processes.rank == 0:
                (self.path / LOG).unlink(missing_ok=True)
            self._save()  # whatever happens from here on, there is something to go on from
        with _interrupts() as pressed, bounded_memory():

            def interrupted() -> bool:
                # Signals reach processes at different steps: all must stop after the same one, or some would wait for ever.
                return self.processes.any(pressed())

            while not state.finished:
                self._epoch(interrupted)
                self._after_epoch(self._validated())
                self.interrupted = interrupted()
                if self.interrupted and not state.finished:
                    raise Stopped
        return state.best_score

    def position(self) -> str:
        """Where the training stands, for a person."""
        state = self.state
        return f"after step {state.step} of epoch {state.epoch}" if state.step else f"before epoch {state.epoch}"

    def chosen(self) -> str:
        """Which epoch is kept, for a person."""
        return f"epoch {self.state.best_epoch} is best"

    def _epoch(self, interrupted: Callable[[], bool]) -> None:
        state, processes = self.state, self.processes
        steps = self.batches.steps(len(self.batches.windows(state.epoch)))
        self.objective.train()
        started, events, loss = time.monotonic(), 0, 0.0
        first = state.step
        for batch in self.batches.epoch(state.epoch, first, processes.rank, processes.ranks):
            # Dropout differs between ranks but is the same whenever this step is taken.
            torch.manual_seed(_seed(self.config.seed, state.epoch, state.step, processes.rank))
            losses = self._step(batch)
            state.step += 1
            events += len(batch.target) * processes.ranks
            loss += losses.total
            seconds = time.monotonic() - started
            left = seconds / (state.step - first) * (steps - state.step)
            self._log({"kind": "step", "epoch": state.epoch, "step": state.step, **self._described(losses)})
            self.now = Progress(state.epoch, state.step, steps, loss / (state.step - first), events / seconds, left)
            self.report(self.now)
            if interrupted() and state.step < steps:
                self._save()
                raise Stopped

    def _step(self, batch: Batch) -> StepLosses:
        self.optimizer.zero_grad(set_to_none=True)
        losses: StepLosses = self.objective(batch, self.processes)
        if not math.isfinite(losses.total):
            raise WorkFailed(
                f"the loss is {losses.total} at epoch {self.state.epoch}, step {self.state.step + 1}: stopped; "
                f"{self.path / LAST} holds the last good state (a lower learning_rate may help)"
            )
        losses.share.backward()
        self.processes.sum_gradients(self.objective)
        self.optimizer.step()
        self.objective.after_step(batch, self.processes)
        return losses

    def _validated(self) -> float:
        try:
            return self.validation.score(self.objective)
        except FloatingPointError as error:  # the last step of the epoch broke the network
            raise WorkFailed(
                f"validation after epoch {self.state.epoch}: {error}: stopped; {self.path / LAST} holds the last good state "
                "(a lower learning_rate may help)"
            ) from error

    def _after_epoch(self, score: float) -> None:
        state, config = self.state, self.config
        # Without validation events the last epoch is the best.
        if score > state.best_score or not self.dataset.validation.events:
            state.best_score, state.best_epoch = score, state.epoch
            if self.processes.rank == 0:
                notes = {"fingerprint": self.dataset.fingerprint, "epoch": state.epoch, "validation_ndcg_at_10": score}
                write_checkpoint(self.path / BEST, dict(self.objective.state_dict()), notes)
        self._log({"kind": "epoch", "epoch": state.epoch, "validation_ndcg_at_10": score})
        self.report(replace(self.now, score=score, best_score=state.best_score, best_epoch=state.best_epoch))
        self._count_time()
        late = self.processes.any(0 < 60 * config.max_minutes <= state.seconds)  # clocks of processes differ
        state.finished = state.epoch >= config.epochs or state.epoch - state.best_epoch >= config.patience or late
        state.epoch, state.step = state.epoch + 1, 0
        self._save()

    def _count_time(self) -> None:
        """Under a cap only: otherwise the same run would not give the same bytes."""
        if self.config.max_minutes:
            now = time.monotonic()
            self.state.seconds, self.clock = self.state.seconds + now - self.clock, now

    def _save(self) -> None:
        self._count_time()
        if self.processes.rank != 0:
            return
        tensors = {**self.objective.state_dict(), **optimizer_tensors(self.optimizer, self.objective)}
        notes = {"fingerprint": self.dataset.fingerprint, **vars(self.state)}
        write_checkpoint(self.path / LAST, tensors, notes)

    def _described(self, losses: StepLosses) -> dict[str, Any]:
        per_domain = {
            name: dict(zip(self.dataset.domains, values.tolist(), strict=True))
            for name, values in losses.per_domain.items()
        }
        return {"loss": losses.total, **losses.terms, **per_domain}

    def _log(self, line: dict[str, Any]) -> None:
        if self.processes.rank != 0:
            return
        try:
            with (self.path / LOG).open("ab") as log:
                log.write(json.dumps(line).encode() + b"\n")
                self.state.log_bytes = log.tell()
        except OSError as error:
            raise WorkFailed(f"cannot write {self.path / LOG}: {error.strerror}") from error


def _seed(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def _interrupts() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; a second time it stops at once."""
    pressed = False

    def press(_signal: int, _frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    former = signal.signal(signal.SIGINT, press)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, former)
