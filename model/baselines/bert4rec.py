"""BERT4Rec (Sun et al., CIKM 2019): masked items are predicted from both sides; the next item is one at the end."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.baselines.network import NextItemNetwork
from model.baselines.sequence_encoder import SequenceEncoder
from model.config import NetworkSizes
from model.initial import initialise
from model.syncrec import Sequences


class BERT4Rec(NextItemNetwork):
    """A reader in which every position sees all of its sequence; a state scores items as in the paper's equation 7.

    There is no SOS: its index, the one behind the items, stands for [mask]. Layers normalise behind each block, as in the
    original.
    """

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__(SequenceEncoder(sizes, may_look=same_sequence))
        self.mask = sizes.items + 1
        self.projection = nn.Linear(sizes.dim, sizes.dim)
        self.bias = nn.Parameter(torch.zeros(sizes.items + 2))
        self.apply(initialise)

    def answer(self, states: Tensor, domain: int) -> Tensor:  # noqa: ARG002 (other networks answer by domain)
        """GELU(W h + b) and a 1 for the items' biases, [n, dim + 1]."""
        return F.pad(F.gelu(self.projection(states)), (0, 1), value=1.0)

    def item_vectors(self) -> Tensor:
        """The item embedding and the items' biases behind it, [items + 2, dim + 1]."""
        return torch.cat([self.encoder.item_embedding.weight, self.bias.unsqueeze(1)], dim=1)

    def at_end(self, sequences: Sequences, domain: int) -> Tensor:
        """Representations of what follows [SOS, v1 .. vn] in every row, read as [v1 .. vn, mask], [batch, dim + 1]."""
        ends = torch.full_like(sequences.item[:, :1], self.mask)
        item = torch.where(sequences.segment > 0, torch.cat([sequences.item[:, 1:], ends], dim=1), 0)
        return super().at_end(sequences._replace(item=item), domain)


def same_sequence(segment: Tensor) -> Tensor:
    """Every position may look at all positions of its sequence, bool [batch, query, key]; see `may_attend`."""
    return segment.unsqueeze(2) == segment.unsqueeze(1)
