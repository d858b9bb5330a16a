"""Item and position embedding, then Transformer layers: the reader that all baselines share."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from model.config import NetworkSizes
from model.syncrec import Sequences
from model.transformer import Encoder, attention_bias, may_attend


class SequenceEncoder(nn.Module):
    """Dropout(LayerNorm(item + position)) and the layers of `model.transformer`.

    It knows nothing of domains but what the item vectors learn.
    """

    def __init__(
        self, sizes: NetworkSizes, further_tokens: int = 1, may_look: Callable[[Tensor], Tensor] = may_attend
    ) -> None:
        """A network of these sizes.

        Args:
            sizes: of the network.
            further_tokens: indices behind the items, SOS the first of them.
            may_look: segments [batch, seq] -> which position may look at which, bool [batch, query, key].
        """
        super().__init__()
        self.dropout = sizes.dropout
        self.may_look = may_look
        self.item_embedding = nn.Embedding(1 + sizes.items + further_tokens, sizes.dim, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_history + 1, sizes.dim)
        self.embedding_norm = nn.LayerNorm(sizes.dim)
        self.layers = Encoder(sizes.dim, sizes.heads, sizes.layers, sizes.dropout, sizes.attention_dropout)

    def forward(self, sequences: Sequences, last: int | None = None) -> Tensor:
        """States of all positions, [batch, seq, dim], or of the last so many, [batch, last, dim]."""
        summed = self.item_embedding(sequences.item) + self.position_embedding(sequences.position)
        embedded = F.dropout(self.embedding_norm(summed), self.dropout, self.training)
        bias = attention_bias(self.may_look(sequences.segment), embedded.dtype)
        states: Tensor = self.layers(embedded, bias, last)
        return states
