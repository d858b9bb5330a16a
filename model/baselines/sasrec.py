"""SASRec (Kang and McAuley, ICDM 2018): causal self-attention over one sequence, all domains mixed."""

from torch import Tensor
from torch.nn import functional as F

from model.baselines.network import NextItemNetwork
from model.baselines.sequence_encoder import SequenceEncoder
from model.config import NetworkSizes
from model.initial import initialise


class SASRec(NextItemNetwork):
    """The state at a position is the user's representation, for every domain the same.

    Where it differs from the original: layers normalise behind instead of in front of each block and their feed-forward
    nets are four times as wide with GELU, as in SyNCRec, so that a comparison shows what is above the layers; sequences
    begin with SOS, so that the first event is a target too.
    """

    def __init__(self, sizes: NetworkSizes) -> None:
        super().__init__(SequenceEncoder(sizes))
        self.apply(initialise)

    def answer(self, states: Tensor, domain: int) -> Tensor:  # noqa: ARG002 (other networks answer by domain)
        """The states themselves."""
        return states


def bce_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """-log sigmoid(s+) - log(1 - sigmoid(s-)) per target (section III-E), in a form that does not overflow.

    Args:
        positive: scores of the targets, [target].
        negative: scores of one item each that the user has not, [target].
    Returns:
        [target].
    """
    return F.softplus(-positive) + F.softplus(negative)
