"""What the gradients of joint training say: whether domains pull the same way, and whether a step for one helps another."""

from typing import Final

import torch
from torch import Tensor

from model.losses import sum_per_group
from training.baselines.next_item import NextItemObjective
from training.batches import Batch
from training.processes import Processes

# Of a plain gradient step; affinities are of the first order in it, so that it hardly changes how they rank domains.
LOOK_AHEAD: Final = 0.05


class MeasuredTransfer(NextItemObjective):
    """Plain joint training that is watched: every so many steps the gradients of all domains are compared.

    Measuring changes nothing: it runs without dropout, draws no random numbers and puts every parameter back. It looks at the
    batches of this process alone.

    cosines: sum of the cosines of two domains' gradients (Du et al. 2018), [domain, domain].
    affinities: sum of TAG's look-ahead affinities (Fifty et al., NeurIPS 2021): by which share a gradient step for the row's
        domain lowers the loss of the column's, [domain, domain].
    measured: how many batches are in these sums, [1].
    """

    def __init__(self, plain: NextItemObjective, domains: int, every_steps: int) -> None:
        """Watch this objective, which then shares its network with this one."""
        super().__init__(plain.network, plain.target_losses, plain.max_history)
        self.every_steps = every_steps
        self.cosines: Tensor  # buffers, so that they are in the checkpoint
        self.affinities: Tensor
        self.measured: Tensor
        self.steps: Tensor
        for name, shape in (("cosines", 2), ("affinities", 2)):
            self.register_buffer(name, torch.zeros([domains] * shape))
        for name in ("measured", "steps"):
            self.register_buffer(name, torch.zeros(1, dtype=torch.int64))

    def after_step(self, batch: Batch, processes: Processes) -> None:  # noqa: ARG002 (see above)
        """Measure on the batch of the step, if it is time, and all domains are in it."""
        if self.steps % self.every_steps == 0 and min(batch.targets_per_domain) > 0:
            mode = self.network.training
            self.network.eval()
            self._measure(batch)
            self.network.train(mode)
            self.measured += 1
        self.steps += 1

    def _measure(self, batch: Batch) -> None:
        parameters = list(self.network.parameters())
        before = self._domain_losses(batch)
        gradients = [torch.autograd.grad(loss, parameters, retain_graph=True) for loss in before]
        flat = torch.stack([torch.cat([part.flatten() for part in gradient]) for gradient in gradients])
        directions = torch.nn.functional.normalize(flat, dim=1)
        self.cosines += directions @ directions.T
        with torch.no_grad():
            kept = [parameter.clone() for parameter in parameters]
            for number, gradient in enumerate(gradients):
                for parameter, part in zip(parameters, gradient, strict=True):
                    parameter.sub_(LOOK_AHEAD * part)
                self.affinities[number] += 1 - self._domain_losses(batch) / before
                for parameter, former in zip(parameters, kept, strict=True):
                    parameter.copy_(former)

    def _domain_losses(self, batch: Batch) -> Tensor:
        """Mean loss of each domain's targets, [domain]."""
        targets = torch.tensor(batch.targets_per_domain)
        return sum_per_group(self.losses(batch), batch.domain, len(targets)) / targets


def from_others(matrix: Tensor) -> list[float]:
    """What each domain has from the others, on average: the mean of its column without the diagonal, [domain].

    Args:
        matrix: of a measure, [source domain, target domain].
    """
    domains = len(matrix)
    return ((matrix.sum(0) - matrix.diagonal()) / (domains - 1)).tolist()
