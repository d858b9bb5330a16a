"""The plain objective: every target counts the same, whatever its domain."""

from collections.abc import Callable

import torch
from torch import Tensor

from model.baselines.network import NextItemNetwork
from model.baselines.sasrec import bce_loss
from model.losses import sum_per_group
from training.baselines.scoring import mixed_scorer
from training.batches import Batch
from training.objective import Objective, StepLosses, next_item_losses
from training.processes import Processes
from training.ranking import Catalogue, Scorer

# Users' representations at the targets [target, dim], item vectors and the batch -> loss of every target, [target].
TargetLosses = Callable[[Tensor, Tensor, Batch], Tensor]


class NextItemObjective(Objective):
    """L = mean loss of all targets of the global batch, predicted from the mixed sequences."""

    def __init__(self, network: NextItemNetwork, target_losses: TargetLosses, max_history: int) -> None:
        super().__init__()
        self.network = network
        self.target_losses = target_losses
        self.max_history = max_history

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch."""
        losses = self.losses(batch)
        domains = len(batch.targets_per_domain)
        count = processes.sum(torch.tensor(batch.targets_per_domain, dtype=losses.dtype))
        summed = processes.sum(sum_per_group(losses, batch.domain, domains))
        return StepLosses(
            share=losses.sum() / count.sum(),
            total=float(summed.sum() / count.sum()),
            terms={},
            per_domain={"mean_loss": summed / count.clamp(min=1)},
        )

    def losses(self, batch: Batch) -> Tensor:
        """Loss of every target of this process's share, [target]."""
        states = self.network.at_slots(batch.cross, batch.cross_slot, batch.targets_per_domain)
        return self.target_losses(states, self.network.item_vectors(), batch)

    def scorers(self, catalogue: Catalogue) -> dict[str, Scorer]:
        """The mixed sequence is read, so it stands where SyNCRec's CDSR stands."""
        return {"cross": mixed_scorer(self.network, catalogue, self.max_history)}

    def per_domain(self) -> dict[str, list[float]]:
        """Nothing: domains have no state."""
        return {}


def bce_losses(states: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
    """`bce_loss` of every target and its negative, [target]; arguments as in `next_item_losses`."""
    return bce_loss((states * vectors[batch.target]).sum(-1), (states * vectors[batch.negative]).sum(-1))


TARGET_LOSSES: dict[str, TargetLosses] = {"bce": bce_losses, "softmax": next_item_losses}
