"""CGRec's idea (Park et al., CIKM 2023): domains are players, and a domain that harms others counts less."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.baselines.network import NextItemNetwork
from model.baselines.visible import only_visible
from model.negative_transfer import NegativeTransferGap
from training.baselines.shapley import transfers
from training.baselines.weighted import DomainLosses, WeightedObjective
from training.batches import Batch
from training.objective import next_item_losses
from training.processes import Processes

# 2^D - 1 passes over a batch.
MOST_DOMAINS = 5


class ShapleyObjective(WeightedObjective):
    """The weight of a domain's loss follows what its events contribute to the predictions of the other domains.

    Every so many steps the batch is predicted, without dropout, once for every set of domains whose events are visible
    (an event that is not is left out altogether). A domain contributes the mean, over the other domains with targets in the
    batch, of its Shapley value in the game of `shapley.transfers`. The running mean of the contributions takes the place of
    lambda in SyNCRec's LC-NTG, so that the two differ in the estimate alone. CGRec's contrastive tasks over categories are
    no part of it.
    """

    def __init__(
        self,
        network: NextItemNetwork,
        max_history: int,
        items_per_domain: tuple[int, ...],
        correction: NegativeTransferGap,
        every_steps: int,
    ) -> None:
        """Measure contributions every so many steps; `correction` makes weights of them."""
        super().__init__(network, next_item_losses, max_history)
        self.correction = correction
        self.every_steps = every_steps
        domains = torch.repeat_interleave(torch.arange(len(items_per_domain)), torch.tensor(items_per_domain))
        self.item_domain: Tensor
        self.register_buffer("item_domain", F.pad(domains, (1, 1)), persistent=False)  # padding and SOS: any
        self.steps: Tensor  # a buffer, so that a resumed run measures at the same steps
        self.register_buffer("steps", torch.zeros(1, dtype=torch.int64))

    def weights(self, now: DomainLosses, batch: Batch, processes: Processes) -> Tensor:  # noqa: ARG002 (it predicts anew)
        """As the contributions so far have it, [domain]."""
        if self.steps % self.every_steps == 0:
            self._measure(batch, processes)
        self.steps += 1
        return self.correction.weights()

    def per_domain(self) -> dict[str, list[float]]:
        """Contributions (nats) and weights as training left them."""
        return {"contribution": self.correction.average.tolist(), "weight": self.correction.weights().tolist()}

    @torch.no_grad()
    def _measure(self, batch: Batch, processes: Processes) -> None:
        mode = self.network.training
        self.network.eval()
        losses, targets = self._losses_by_visible_domains(batch, processes)
        self.network.train(mode)
        present = targets > 0
        given = transfers(losses).sum(0)  # to a domain without targets, whose losses are 0: nothing
        self.correction.update(given, torch.zeros_like(given), count=present.sum() - present.long())

    def _losses_by_visible_domains(self, batch: Batch, processes: Processes) -> tuple[Tensor, Tensor]:
        """Mean losses as `transfers` reads them, and targets per domain."""
        domains = len(batch.targets_per_domain)
        of_event = self.item_domain[batch.cross.item]
        found = [torch.zeros(domains)]  # nobody's events visible: of no use, and not read
        for coalition in range(1, 2**domains):
            visible = (coalition >> of_event) & 1 > 0
            cross, stands_for = only_visible(batch.cross, visible)
            changed = batch._replace(cross=cross, cross_slot=stands_for[batch.cross_slot])
            now = self.domain_losses(changed, processes)
            found.append(now.mean)
        return torch.stack(found), now.targets
