"""MMoE (Ma et al., KDD 2018): experts that all tasks share, one gate and one tower per task; here a task is a domain."""

from torch import Tensor, nn

from model.acmoe import Tower
from model.baselines.head import DomainHead
from model.baselines.network import NextItemNetwork
from model.baselines.sequence_encoder import SequenceEncoder
from model.config import NetworkSizes
from model.initial import initialise


class MMoE(NextItemNetwork):
    """One causal reader of the mixed sequence; above its states feed-forward experts, and per domain a gate and a tower.

    The original's input is a feature vector; here (section 4.2) it is the reader's state. Experts and
    towers have the form of SyNCRec's towers.
    """

    def __init__(self, sizes: NetworkSizes, experts: int) -> None:
        super().__init__(SequenceEncoder(sizes))
        self.experts = nn.ModuleList(Tower(sizes.dim, sizes.dropout) for _ in range(experts))
        self.heads = nn.ModuleList(DomainHead(experts, sizes.dim, sizes.dropout) for _ in sizes.items_per_domain)
        self.apply(initialise)

    def answer(self, states: Tensor, domain: int) -> Tensor:
        """What the domain's gate and tower make of all experts, [n, dim]."""
        out: Tensor = self.heads[domain](states, list(self.experts))
        return out
