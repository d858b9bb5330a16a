"""What a training step costs, setting against setting: in one process, in turn, so that a busy machine slows all of them alike."""

import time
from collections.abc import Iterator, Sequence
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import Batch, Batches
from training.config import LoopConfig
from training.dataset import Dataset
from training.memory import bounded_memory
from training.methods import build_objective
from training.processes import Processes

# The first steps of a setting fill the optimiser's state and the allocator's caches.
_WARM_UP = 2


def seconds_per_event(settings: Sequence[tuple[Dataset, LoopConfig]], rounds: int) -> NDArray[np.float64]:
    """Wall time of whole training steps, batch making and optimiser included.

    Args:
        settings: what is trained on what.
        rounds: in each of them, every setting takes one step.
    Returns:
        seconds per training event, [rounds, settings].
    """
    steps = [_Steps(*setting) for setting in settings]
    with bounded_memory():
        found = [[step.seconds_per_event() for step in steps] for _ in range(_WARM_UP + rounds)]
    return np.array(found[_WARM_UP:])


def relative(seconds: NDArray[np.float64], draws: int = 2000) -> NDArray[np.float64]:
    """Each setting's time over the first one's in the same round: median, and where 95 % of bootstrapped medians lie.

    Args:
        seconds: [rounds, settings].
        draws: of the bootstrap over rounds.
    Returns:
        median, low and high, [3, settings].
    """
    ratio = seconds / seconds[:, :1]
    drawn = np.random.default_rng(0).integers(0, len(ratio), (draws, len(ratio)))
    medians = np.median(ratio[drawn], axis=1)
    return np.stack([np.median(ratio, axis=0), *np.quantile(medians, (0.025, 0.975), axis=0)])


class _Steps:
    """A training that is only timed."""

    def __init__(self, dataset: Dataset, config: LoopConfig) -> None:
        self.objective = build_objective(config, dataset).train()
        self.optimizer = torch.optim.Adam(self.objective.parameters(), lr=config.learning_rate, fused=True)
        self.batches = _endless(
            Batches(
                dataset,
                config.max_history + 1,
                config.batch_windows,
                config.every_window,
                config.seed,
                config.candidates or None,
            )
        )

    def seconds_per_event(self) -> float:
        """Take one step."""
        started = time.perf_counter()
        batch = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        self.objective(batch, Processes()).share.backward()
        self.optimizer.step()
        return (time.perf_counter() - started) / len(batch.target)


def _endless(batches: Batches) -> Iterator[Batch]:
    for epoch in count(1):
        yield from batches.epoch(epoch)
