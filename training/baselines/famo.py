"""FAMO (Liu et al., NeurIPS 2023): weights under which all losses fall at the same rate."""

import torch
from torch import Tensor

from model.baselines.network import NextItemNetwork
from training.baselines.weighted import DomainLosses, WeightedObjective
from training.batches import Batch
from training.objective import StepLosses, next_item_losses
from training.processes import Processes

# Adam's, as torch.optim has them.
FIRST_DECAY, SECOND_DECAY, EPSILON = 0.9, 0.999, 1e-8


class FamoObjective(WeightedObjective):
    """Descends sum_d z_d log L_d with z = softmax(xi); domains without targets in a batch stand aside in it.

    After each step the losses of the same batch are taken again, and xi moves by Adam along the gradient of
    sum_d z_d (log L_d before - log L_d after) + decay xi^2 / 2 (algorithm 1, with Adam as in the authors' code): weight goes
    from domains that improve fast to those that improve slowly.
    """

    def __init__(self, network: NextItemNetwork, max_history: int, domains: int, rate: float, decay: float) -> None:
        """Equal weights of so many domains; `rate` and `decay` are the learning rate and the weight decay of xi."""
        super().__init__(network, next_item_losses, max_history)
        self.rate, self.decay = rate, decay
        self.xi: Tensor  # buffers, so they are in the checkpoint
        self.first: Tensor
        self.second: Tensor
        self.moves: Tensor
        for name in ("xi", "first", "second"):
            self.register_buffer(name, torch.zeros(domains))
        self.register_buffer("moves", torch.zeros(1))

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch."""
        self.random_state = torch.get_rng_state()
        losses = super().forward(batch, processes)
        self.before = losses.per_domain["mean_loss"]
        return losses

    def weights(self, now: DomainLosses, batch: Batch, processes: Processes) -> Tensor:  # noqa: ARG002 (losses suffice)
        """The gradient of sum_d z_d log L_d by the losses, scaled to a mean of 1, [domain]."""
        steep = torch.where(now.targets > 0, self.xi.softmax(0) / now.mean.clamp(min=EPSILON), 0)
        return len(steep) * steep / steep.sum()

    @torch.no_grad()
    def after_step(self, batch: Batch, processes: Processes) -> None:
        """Move xi by what the step did to the losses of its batch."""
        torch.set_rng_state(self.random_state)  # the same dropout, or its luck would look like progress
        now = self.domain_losses(batch, processes)
        present = now.targets > 0
        progress = torch.where(present, self.before.clamp(min=EPSILON).log() - now.mean.clamp(min=EPSILON).log(), 0)
        share = self.xi.masked_fill(~present, float("-inf")).softmax(0)
        self._move(share * (progress - (share * progress).sum()) + self.decay * self.xi)

    def per_domain(self) -> dict[str, list[float]]:
        """z, scaled to a mean of 1."""
        return {"weight": (len(self.xi) * self.xi.softmax(0)).tolist()}

    def _move(self, gradient: Tensor) -> None:
        """One step of Adam; torch's own keeps its state outside of the checkpoint."""
        self.moves += 1
        self.first.lerp_(gradient, 1 - FIRST_DECAY)
        self.second.lerp_(gradient.square(), 1 - SECOND_DECAY)
        first, second = self.first / (1 - FIRST_DECAY**self.moves), self.second / (1 - SECOND_DECAY**self.moves)
        self.xi -= self.rate * first / (second.sqrt() + EPSILON)
