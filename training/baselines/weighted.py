"""Joint training in which domains count by weights: what all weightings have in common."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from model.losses import sum_per_group
from training.baselines.next_item import NextItemObjective
from training.batches import Batch
from training.objective import StepLosses
from training.processes import Processes


class DomainLosses(NamedTuple):
    """Mean loss of each domain's targets in a global batch, 0 where there is none, [domain] each.

    share: this process's part of the means, with gradient; the parts of all processes add up to the means.
    mean: a constant.
    targets: how many.
    """

    share: Tensor
    mean: Tensor
    targets: Tensor


class WeightedObjective(NextItemObjective):
    """L = mean over domains of w_d times the mean loss of the domain's targets; the mean of the weights is about 1.

    A domain without targets in a batch adds nothing to it.
    """

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch."""
        now = self.domain_losses(batch, processes)
        weights = self.weights(now, batch, processes)
        domains = len(weights)
        return StepLosses(
            share=(weights * now.share).sum() / domains,
            total=float((weights * now.mean).sum() / domains),
            terms={},
            per_domain={"mean_loss": now.mean, "weight": weights},
        )

    def domain_losses(self, batch: Batch, processes: Processes) -> DomainLosses:
        """What the weights weigh."""
        losses = self.losses(batch)
        targets = processes.sum(torch.tensor(batch.targets_per_domain, dtype=losses.dtype))
        share = sum_per_group(losses, batch.domain, len(targets)) / targets.clamp(min=1)
        return DomainLosses(share, processes.sum(share), targets)

    @abstractmethod
    def weights(self, now: DomainLosses, batch: Batch, processes: Processes) -> Tensor:
        """Weights of the domains' mean losses in this step, constants, [domain]."""
