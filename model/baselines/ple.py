"""PLE (Tang et al., RecSys 2020): experts of each task beside experts that all share; here a task is a domain."""

from torch import Tensor, nn

from model.acmoe import Tower
from model.baselines.head import DomainHead
from model.baselines.network import NextItemNetwork
from model.baselines.sequence_encoder import SequenceEncoder
from model.config import NetworkSizes
from model.initial import initialise


class PLE(NextItemNetwork):
    """One causal reader of the mixed sequence and one extraction layer: a domain's gate weighs its own and the shared experts.

    With one extraction layer PLE is what its authors call CGC (section 4.1); its input is the reader's state. Experts and
    towers have the form of SyNCRec's towers.
    """

    def __init__(self, sizes: NetworkSizes, shared_experts: int, domain_experts: int) -> None:
        """A network of these sizes with so many shared experts, and so many of each domain."""
        super().__init__(SequenceEncoder(sizes))
        self.shared = nn.ModuleList(Tower(sizes.dim, sizes.dropout) for _ in range(shared_experts))
        self.own = nn.ModuleList(
            nn.ModuleList(Tower(sizes.dim, sizes.dropout) for _ in range(domain_experts))
            for _ in sizes.items_per_domain
        )
        experts = domain_experts + shared_experts
        self.heads = nn.ModuleList(DomainHead(experts, sizes.dim, sizes.dropout) for _ in sizes.items_per_domain)
        self.apply(initialise)

    def answer(self, states: Tensor, domain: int) -> Tensor:
        """What the domain's gate and tower make of its own and the shared experts, [n, dim]."""
        out: Tensor = self.heads[domain](states, [*self.own[domain].children(), *self.shared])
        return out
