"""Gate and tower of one domain: what MMoE and PLE put above a shared reader."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.acmoe import Tower


class DomainHead(nn.Module):
    """h(sum_k g(x)_k f_k(x)): the domain's own gate g and tower h over experts f that it is given."""

    def __init__(self, experts: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, experts)
        self.tower = Tower(dim, dropout)

    def forward(self, states: Tensor, experts: Sequence[nn.Module]) -> Tensor:
        """Representations for the domain, [n, dim] -> [n, dim]; as many experts as the gate knows."""
        share = self.gate(states).softmax(-1)
        outs = torch.stack([expert(states) for expert in experts])  # [expert, n, dim]
        mixed: Tensor = self.tower(torch.einsum("nk,knd->nd", share, outs))
        return mixed
