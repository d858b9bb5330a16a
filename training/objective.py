"""The loss of one step: L = L_single + L_cross, weighted by LC-NTG, + eta SC-MIM (paper section 3)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.losses import MutualInformation, pairwise_loss, sum_per_group
from model.negative_transfer import NegativeTransferGap
from model.syncrec import SyNCRec
from training.batches import Batch
from training.processes import Processes


@dataclass(frozen=True)
class StepLosses:
    """What a step is told by: the loss to descend (this rank's share) and, of the global batch, what the log shows."""

    share: Tensor
    total: float
    single: float
    cross: float
    mutual_information: float
    phi: Tensor


class Objective(nn.Module):
    """The network and everything of the loss that has state or weights: all that a checkpoint holds."""

    def __init__(
        self, network: SyNCRec, gap: NegativeTransferGap, mutual: MutualInformation, mutual_information: float
    ) -> None:
        super().__init__()
        self.network = network
        self.gap = gap
        self.mutual = mutual
        self.mutual_information = mutual_information

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch, of which `batch` is this process's share. Updates the gaps."""
        out = self.network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
        single = self._pairwise(out.single, batch)
        cross = self._pairwise(out.cross, batch)  # the same negatives: otherwise the gap would measure their luck
        domains = len(batch.targets_per_domain)
        count = processes.sum(torch.tensor(batch.targets_per_domain, dtype=single.dtype))
        single_sum = processes.sum(sum_per_group(single, batch.domain, domains))
        cross_sum = processes.sum(sum_per_group(cross, batch.domain, domains))
        phi = self.gap.update(single_sum, cross_sum, count)
        weights = self.gap.weights()
        targets = count.sum()
        weighted = (weights[batch.domain] * cross).sum() / targets
        mutual = self._mutual_information(out.single, out.cross, batch, processes)
        share = single.sum() / targets + weighted + self.mutual_information * mutual
        return StepLosses(
            share=share,
            total=float(processes.sum(share)),
            single=float(single_sum.sum() / targets),
            cross=float(cross_sum.sum() / targets),
            mutual_information=float(processes.sum(mutual)),
            phi=phi,
        )

    def _pairwise(self, states: Tensor, batch: Batch) -> Tensor:
        vectors = self.network.item_vectors()
        positive = (states * vectors[batch.target]).sum(-1)
        negative = (states * vectors[batch.negative]).sum(-1)
        return pairwise_loss(positive, negative)

    def _mutual_information(self, single: Tensor, cross: Tensor, batch: Batch, processes: Processes) -> Tensor:
        """This rank's share of SC-MIM: the users of all ranks are each other's negatives."""
        domains = len(batch.targets_per_domain)
        group, groups = batch.user * domains + batch.domain, batch.users * domains
        count = processes.sum(torch.bincount(group, minlength=groups))
        sums = torch.cat([sum_per_group(states, group, groups) for states in (single, cross)])
        both = processes.sum_with_gradient(sums) / count.clamp(min=1).repeat(2)[:, None]
        present = count.view(-1, domains) > 0
        vectors = both.view(2, batch.users, domains, -1)
        own = slice(processes.rank, None, processes.ranks)
        share: Tensor = self.mutual(vectors[0], vectors[1, own], present, own)
        return share
