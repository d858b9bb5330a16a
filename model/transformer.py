"""Post-norm Transformer layers over packed rows; an expert of SyNCRec is a stack of them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def may_attend(segment: Tensor) -> Tensor:
    """Which position may look at which: those of its own sequence that are not later.

    Several sequences may share a row, each with a segment number of its own; padding is segment 0 and sees padding only,
    so no row of the mask is empty (softmax over nothing is NaN).

    Args:
        segment: [batch, seq].
    Returns:
        bool, [batch, query, key].
    """
    seq = segment.shape[1]
    not_later = torch.ones(seq, seq, dtype=torch.bool, device=segment.device).tril()
    return (segment.unsqueeze(2) == segment.unsqueeze(1)) & not_later


def attention_bias(attend: Tensor, dtype: torch.dtype) -> Tensor:
    """`may_attend` as what is added to the attention's logits: 0 or -inf, [batch, 1, query, key].

    In float once for all layers: the attention kernels would convert a bool mask at every call.
    """
    return torch.zeros_like(attend, dtype=dtype).masked_fill(~attend, float("-inf")).unsqueeze(1)


class Layer(nn.Module):
    """Self-attention and a feed-forward net of width 4 dim (GELU), each followed by dropout, residual and LayerNorm."""

    def __init__(self, dim: int, heads: int, dropout: float, attention_dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.attention_dropout = attention_dropout
        self.query = nn.Linear(dim, dim)
        self.key_value = nn.Linear(dim, 2 * dim)
        self.attended = nn.Linear(dim, dim)
        self.attention_norm = nn.LayerNorm(dim)
        self.widen = nn.Linear(dim, 4 * dim)
        self.narrow = nn.Linear(4 * dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, states: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        """States of the positions asked for.

        Args:
            states: the positions that are asked for, [batch, query, dim].
            context: the positions that they may look at, [batch, key, dim].
            bias: 0 where a query may look, -inf elsewhere, [batch, 1, query, key].
        Returns:
            [batch, query, dim].
        """
        query = self._split(self.query(states))  # [batch, head, query, dim / head]
        key, value = map(self._split, self.key_value(context).chunk(2, dim=-1))
        p = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=p)
        mixed = self.attended(mixed.transpose(1, 2).flatten(2))
        states = self.attention_norm(states + F.dropout(mixed, self.dropout, self.training))
        widened = self.narrow(F.gelu(self.widen(states)))
        out: Tensor = self.norm(states + F.dropout(widened, self.dropout, self.training))
        return out

    def _split(self, states: Tensor) -> Tensor:
        split: Tensor = states.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return split


class Encoder(nn.Module):
    """A stack of layers: one expert."""

    def __init__(self, dim: int, heads: int, layers: int, dropout: float, attention_dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(dim, heads, dropout, attention_dropout) for _ in range(layers))

    def forward(self, states: Tensor, bias: Tensor, last: int | None = None) -> Tensor:
        """States after all layers.

        Args:
            states: [batch, seq, dim].
            bias: 0 or -inf, [batch, 1, seq, seq].
            last: answer only the last so many positions; the last layer then computes no more than those.
        Returns:
            [batch, seq, dim], or [batch, last, dim].
        """
        *lower, top = self.layers
        for layer in lower:
            states = layer(states, states, bias)
        asked = states if last is None else states[:, -last:]
        out: Tensor = top(asked, states, bias if last is None else bias[:, :, -last:])
        return out
