"""The numbers that make a network."""

from dataclasses import KW_ONLY, dataclass


@dataclass(frozen=True)
class NetworkSizes:
    """Sizes that every network has which reads a user's sequence.

    Attributes:
        items_per_domain: catalogue size of each domain; item indices run from 1, contiguous in this order.
        max_history: events that the network reads of a history (L).
        dim: width of embeddings and outputs (r).
        heads: attention heads per layer.
        layers: Transformer layers, of each expert where there are experts.
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

    @property
    def domains(self) -> int:
        """Number of domains (D)."""
        return len(self.items_per_domain)


@dataclass(frozen=True)
class SyNCRecConfig(NetworkSizes):
    """Sizes of a SyNCRec network.

    Attributes:
        experts: number of experts (K).
        single_experts: the first so many experts learn from SDSR only, the others from CDSR only (j).
        stop_gradient: off, both tasks teach all experts: the paper's method without ACMoE.
    """

    _: KW_ONLY
    experts: int
    single_experts: int
    stop_gradient: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.single_experts < self.experts:
            raise ValueError(
                f"single_experts: both tasks need an expert of their own, got {self.single_experts} of {self.experts}"
            )
