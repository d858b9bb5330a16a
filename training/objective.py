"""What a training descends: the loss of one step, of SyNCRec and in general."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn

from model.losses import MutualInformation, pairwise_loss, softmax_loss, sum_per_group
from model.negative_transfer import NegativeTransferGap
from model.syncrec import SyNCRec
from training.batches import Batch
from training.processes import Processes
from training.ranking import Catalogue, Scorer, cross_scorer, single_scorer


@dataclass(frozen=True)
class StepLosses:
    """What a step is told by.

    share: this rank's share of the loss to descend.
    total: the loss of the global batch, a number.
    terms: parts of it for the log.
    per_domain: figures of each domain for the log, [domain] each.
    """

    share: Tensor
    total: float
    terms: dict[str, float]
    per_domain: dict[str, Tensor]


class Objective(nn.Module, ABC):
    """A network and everything of its loss that has state or weights: all that a checkpoint holds."""

    @abstractmethod
    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch, of which `batch` is this process's share."""

    def after_step(self, batch: Batch, processes: Processes) -> None:
        """Learn from what the step that the losses of this batch led to has changed."""

    @abstractmethod
    def scorers(self, catalogue: Catalogue) -> dict[str, Scorer]:
        """What the network can rank by; the first is what it serves and what validation goes by."""

    @abstractmethod
    def per_domain(self) -> dict[str, list[float]]:
        """State of each domain that a reader of an evaluation wants to see, [domain] each."""


def next_item_losses(states: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
    """Loss of every target: softmax over the target's domain where the batch has candidates, else pairwise.

    Args:
        states: the users' representations, [target, dim].
        vectors: of all items, [items + 2, dim].
        batch: targets, and what they are compared with.
    Returns:
        [target].
    """
    if batch.candidates is not None:
        sizes = batch.candidates.items_per_domain
        # Each domain looks up in its own part of the table: the gradient of a look-up is as large as what it looks in.
        of_domain = zip(
            states.split(batch.targets_per_domain),
            vectors.split([1, *sizes, 1])[1:-1],
            batch.target.split(batch.targets_per_domain),
            batch.candidates.drawn,
            accumulate(sizes, initial=1),
            sizes,
            strict=False,  # one more first item than domains
        )
        return torch.cat(
            [
                softmax_loss(own, table, target - first, drawn - first, n)
                for own, table, target, drawn, first, n in of_domain
            ]
        )
    positive = (states * vectors[batch.target]).sum(-1)
    negative = (states * vectors[batch.negative]).sum(-1)
    return pairwise_loss(positive, negative)


class SyNCRecObjective(Objective):
    """L = L_single + L_cross, weighted by LC-NTG, + eta SC-MIM (paper section 3)."""

    def __init__(
        self,
        network: SyNCRec,
        gap: NegativeTransferGap,
        mutual: MutualInformation,
        mutual_information: float,
        max_history: int,
    ) -> None:
        super().__init__()
        self.network = network
        self.gap = gap
        self.mutual = mutual
        self.mutual_information = mutual_information
        self.max_history = max_history

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch. Updates the gaps."""
        out = self.network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
        vectors = self.network.item_vectors()
        single = next_item_losses(out.single, vectors, batch)
        cross = next_item_losses(
            out.cross, vectors, batch
        )  # the same negatives: otherwise the gap would measure their luck
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
            terms={
                "single": float(single_sum.sum() / targets),
                "cross": float(cross_sum.sum() / targets),
                "mutual_information": float(processes.sum(mutual)),
            },
            per_domain={"phi": phi, "lambda": self.gap.average, "weight": weights},
        )

    def scorers(self, catalogue: Catalogue) -> dict[str, Scorer]:
        """CDSR, which is served, and SDSR."""
        return {
            "cross": cross_scorer(self.network, catalogue, self.max_history),
            "single": single_scorer(self.network, catalogue, self.max_history),
        }

    def per_domain(self) -> dict[str, list[float]]:
        """The gaps and weights as training left them."""
        return {"lambda": self.gap.average.tolist(), "weight": self.gap.weights().tolist()}

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
