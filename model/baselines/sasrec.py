"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over one sequence, all domains mixed."""

from torch import Tensor
from torch.nn import functional as F

from model.baselines.network import NextItemNetwork, initialise
from model.baselines.sequence_encoder import SequenceEncoder
from model.baselines.sizes import NetworkSizes
from model.syncrec import Sequences


class SASRec(NextItemNetwork):
    """The state at a position is the user's representation, for every domain the same.

    Where it differs from the original: layers normalise behind instead of in front of each block and their feed-forward
    nets are four times as wide with GELU, as in SyNCRec, so that a comparison shows what is above the layers; sequences
    begin with SOS, so that the first event is a target too.
    """

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__()
        self.encoder = SequenceEncoder(sizes)
        self.apply(initialise)

    def encode(self, sequences: Sequences, last: int | None = None) -> Tensor:
        """States, [batch, seq or last, dim]."""
        states: Tensor = self.encoder(sequences, last)
        return states

    def answer(self, states: Tensor, domain: int) -> Tensor:  # noqa: ARG002 (other networks answer by domain)
        """The states themselves."""
        return states

    def item_vectors(self) -> Tensor:
        """The item embedding, [items + 2, dim]."""
        return self.encoder.item_embedding.weight


def bce_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """-log sigmoid(s+) - log(1 - sigmoid(s-)) per target (equation 6), in a form that does not overflow.

    Args:
        positive: scores of the targets, [target].
        negative: scores of one item each that the user has not, [target].
    Returns:
        [target].
    """
    return F.softplus(-positive) + F.softplus(negative)
