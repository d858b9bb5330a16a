"""PCGrad (Yu et al., NeurIPS 2020): of two domains' gradients that point apart, each loses its part against the other."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from formats.errors import WorkFailed
from model.baselines.network import NextItemNetwork
from training.baselines.weighted import DomainLosses, WeightedObjective
from training.batches import Batch
from training.objective import next_item_losses
from training.processes import Processes

if TYPE_CHECKING:
    from torchjd.aggregation import PCGradWeighting


class PCGradObjective(WeightedObjective):
    """The projections of PCGrad, done by TorchJD.

    A sum of projected gradients is a weighted sum of the gradients, and their inner products are enough to know the
    weights; so the step descends the weighted loss.
    """

    def __init__(self, network: NextItemNetwork, max_history: int) -> None:
        """PCGrad has no settings.

        Raises:
            WorkFailed: TorchJD is not installed.
        """
        super().__init__(network, next_item_losses, max_history)
        self.weighting = _pcgrad()

    def weights(self, now: DomainLosses, batch: Batch, processes: Processes) -> Tensor:  # noqa: ARG002 (gradients suffice)
        """What each domain's gradient counts in the sum of the projected ones, [domain]."""
        gradients = torch.stack([self._gradient(loss, processes) for loss in now.share])
        weights: Tensor = self.weighting(gradients @ gradients.T)
        # The order of the projections is random: all processes take the one of the first.
        return processes.sum(weights if processes.rank == 0 else torch.zeros_like(weights))

    def _gradient(self, loss: Tensor, processes: Processes) -> Tensor:
        parameters = list(self.network.parameters())
        found = torch.autograd.grad(loss, parameters, retain_graph=True)
        return processes.sum(torch.cat([gradient.flatten() for gradient in found]))


def _pcgrad() -> "PCGradWeighting":
    try:
        from torchjd.aggregation import PCGradWeighting  # noqa: PLC0415 (needed by this one baseline)
    except ImportError as error:
        raise WorkFailed("PCGrad needs TorchJD: pip install torchjd") from error
    return PCGradWeighting()
