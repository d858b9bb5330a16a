"""Item kNN as tensors, so that it can be part of the exported graph."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Neighbours(nn.Module):
    """Every item's strongest neighbours, and the two members that read them.

    An event of the history speaks for the neighbours of its item. One member hears the events of all domains; the other, in
    every domain, the events of this domain alone. An event weighs decay^place, the newest that is heard at place 0.
    """

    def __init__(
        self,
        item: Tensor,
        weight: Tensor,
        item_domain: Tensor,
        decay: float,
        domains: Sequence[int],
        of_all: Sequence[float],
        of_own: Sequence[float],
    ) -> None:
        """Take over a table.

        Args:
            item: item indices of the neighbours in every domain listed, 0 where there are fewer, [items + 1, domain, neighbour].
            weight: how strongly each item speaks for each, 0 there, [items + 1, domain, neighbour].
            item_domain: domain of every index, 0 for padding and SOS, [items + 2].
            decay: what an event keeps of the weight of the next newer one.
            domains: numbers of the domains listed, from 1.
            of_all: weight of the member that hears all domains in the mixture of each domain, [domain].
            of_own: weight of the other, [domain].
        """
        super().__init__()
        self.decay, self.domains = decay, list(domains)
        self.of_all, self.of_own = list(of_all), list(of_own)
        self.item: Tensor
        self.weight: Tensor
        self.item_domain: Tensor
        start = torch.zeros_like(item[:1])  # SOS speaks for nothing
        self.register_buffer("item", torch.cat([item, start]).int())
        self.register_buffer("weight", torch.cat([weight, start.to(weight.dtype)]))
        self.register_buffer("item_domain", item_domain)

    def forward(self, shares: Tensor, history: Tensor) -> Tensor:
        """Both members' weighted shares, added.

        Args:
            shares: what to add to, [batch, items + 2].
            history: `formats.history.encode_histories`, [batch, slots].
        Returns:
            [batch, items + 2].
        """
        history = history.long()
        spoken = _rows(self.weight, history)  # [batch, slots, domain, neighbour]
        total = spoken.sum(-1)
        heard = torch.zeros_like(total)
        if any(self.of_all):
            heard = heard + self._heard(self._places(history), total, self.of_all)
        if any(self.of_own):
            heard = heard + self._heard(self._own_places(history), total, self.of_own)
        # One scatter for both, after the weights: passes over all items are what costs.
        return shares.scatter_add(
            1, _rows(self.item, history).long().flatten(1), (spoken * heard.unsqueeze(-1)).flatten(1)
        )

    def _heard(self, of_event: Tensor, total: Tensor, weights: list[float]) -> Tensor:
        """Weights of events that make all shares of a domain add up to the member's weight, [batch, slots, domain]."""
        sums = (of_event * total).sum(1, keepdim=True)
        weight = torch.tensor(weights, dtype=total.dtype)
        return of_event * (weight / sums.clamp(min=torch.finfo(total.dtype).tiny))

    def _places(self, history: Tensor) -> Tensor:
        """decay^place among all events, [slots, 1]."""
        place = torch.arange(history.shape[1] - 1, -1, -1, dtype=self.weight.dtype)
        weight: Tensor = self.decay**place
        return weight.unsqueeze(-1)

    def _own_places(self, history: Tensor) -> Tensor:
        """decay^place among the events of each domain, 0 for other events, [batch, slots, domain]."""
        own = (self.item_domain[history].unsqueeze(-1) == torch.tensor(self.domains)).to(self.weight.dtype)
        later = own.sum(1, keepdim=True) - own.cumsum(1)
        weight: Tensor = self.decay**later * own
        return weight


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """`table[index]`, which would be exported as GatherND: half as fast."""
    rows: Tensor = table.index_select(0, index.flatten()).unflatten(0, index.shape)
    return rows
