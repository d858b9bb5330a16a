"""The numbers that make a baseline's network."""

from dataclasses import dataclass


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes of a network that reads one sequence per user; the names are those of `model.config.SyNCRecConfig`.

    Attributes:
        items_per_domain: catalogue size of each domain; item indices run from 1, contiguous in this order.
        max_history: events that the network reads of a history.
        dim: width of embeddings and outputs.
        heads: attention heads per layer.
        layers: Transformer layers.
        dropout: after embeddings, attention and feed-forward layers.
        attention_dropout: of the attention weights.
    """

    items_per_domain: tuple[int, ...]
    max_history: int
    dim: int
    heads: int
    layers: int
    dropout: float
    attention_dropout: float = 0.0

    def __post_init__(self) -> None:
        if not self.items_per_domain or min(self.items_per_domain) < 1:
            raise ValueError(f"items_per_domain: every domain needs an item, got {self.items_per_domain}")
        for name in ("max_history", "dim", "heads", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.dim % self.heads:
            raise ValueError(f"heads: {self.heads} heads do not divide dim {self.dim}")
        for name in ("dropout", "attention_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name}: must be in [0, 1), got {getattr(self, name)}")

    @property
    def items(self) -> int:
        """Number of items over all domains."""
        return sum(self.items_per_domain)
