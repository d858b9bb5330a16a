"""Weights by the size of a domain, fixed before training."""

import torch
from torch import Tensor

from model.baselines.network import NextItemNetwork
from training.baselines.weighted import DomainLosses, WeightedObjective
from training.batches import Batch
from training.objective import next_item_losses
from training.processes import Processes


class StaticObjective(WeightedObjective):
    """w_d proportional to n_d^a, n_d the domain's training events.

    a = 0 lets every domain count the same; a = 1 every event, up to the luck of a batch.
    """

    def __init__(self, network: NextItemNetwork, max_history: int, events: list[int], exponent: float) -> None:
        """Weights from the training events of each domain, [domain], and a."""
        super().__init__(network, next_item_losses, max_history)
        raised = torch.tensor(events, dtype=torch.float64) ** exponent
        self.fixed: Tensor
        self.register_buffer("fixed", (raised / raised.mean()).float(), persistent=False)

    def weights(self, now: DomainLosses, batch: Batch, processes: Processes) -> Tensor:  # noqa: ARG002
        """The same at every step, [domain]."""
        return self.fixed

    def per_domain(self) -> dict[str, list[float]]:
        """The weights."""
        return {"weight": self.fixed.tolist()}
