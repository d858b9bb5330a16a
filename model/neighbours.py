"""Item kNN as tensors, so that it can be part of the exported graph."""

import torch
from torch import Tensor, nn


class Neighbours(nn.Module):
    """Every item's strongest neighbours; a user's score of an item is the sum over the history's events.

    The table is made by `training.memory_based.item_knn`; an event weighs decay^place, the newest at place 0.
    """

    def __init__(self, item: Tensor, weight: Tensor, item_domain: Tensor, decay: float) -> None:
        """Take over a table.

        Args:
            item: item indices, 0 where an item has fewer neighbours, [items + 1, neighbours].
            weight: how strongly each speaks for the other, 0 there, [items + 1, neighbours].
            item_domain: domain of every index, 0 for padding and SOS, [items + 2].
            decay: what an event keeps of the weight of the next newer one.
        """
        super().__init__()
        self.decay = decay
        self.domains = int(item_domain.max())
        self.item: Tensor
        self.weight: Tensor
        self.item_domain: Tensor
        start = torch.zeros_like(item[:1])  # SOS speaks for nothing
        self.register_buffer("item", torch.cat([item, start]).int())
        self.register_buffer("weight", torch.cat([weight, start.to(weight.dtype)]))
        self.register_buffer("item_domain", item_domain)

    def forward(self, history: Tensor) -> Tensor:
        """Scores of all items from the events of all domains.

        Args:
            history: `formats.history.encode_histories`, [batch, slots].
        Returns:
            [batch, items + 2]; what stands at padding is meaningless.
        """
        slots = history.shape[1]
        of_place = self.decay ** torch.arange(slots - 1, -1, -1, dtype=self.weight.dtype)
        history = history.long()
        return self._sum(history, self.weight[history] * of_place[:, None])

    def own(self, history: Tensor) -> Tensor:
        """Scores of every domain's items from the events of this domain alone; places count its events only."""
        history = history.long()
        domain = self.item_domain[history]
        of_domain = domain.unsqueeze(-1) == torch.arange(1, self.domains + 1)  # [batch, slots, domain]
        counted = of_domain.long()
        later = (counted.sum(1, keepdim=True) - counted.cumsum(1)) * of_domain
        of_place = self.decay ** later.sum(-1).to(self.weight.dtype)
        same = self.item_domain[self.item[history].long()] == domain.unsqueeze(-1)
        return self._sum(history, self.weight[history] * same * of_place.unsqueeze(-1))

    def _sum(self, history: Tensor, spoken: Tensor) -> Tensor:
        zeros = torch.zeros(history.shape[0], len(self.item), dtype=self.weight.dtype)
        return zeros.scatter_add(1, self.item[history].long().flatten(1), spoken.flatten(1))
