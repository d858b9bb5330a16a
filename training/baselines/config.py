"""Everything that a training of a baseline can be told."""

from dataclasses import asdict, dataclass

from formats.errors import WrongUse
from model.baselines.sizes import NetworkSizes
from training.config import LoopConfig


@dataclass(frozen=True)
class BaselineConfig(LoopConfig):
    """A network that is trained with the softmax over the target's domain."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_candidates()

    def _check_candidates(self) -> None:
        if self.candidates < 1:
            raise WrongUse(f"candidates: the softmax needs at least 1, got {self.candidates}")

    def network(self, items_per_domain: tuple[int, ...]) -> NetworkSizes:
        """The sizes of the network for this catalogue.

        Raises:
            WrongUse: they contradict each other.
        """
        try:
            return NetworkSizes(
                items_per_domain=items_per_domain,
                max_history=self.max_history,
                dim=self.dim,
                heads=self.heads,
                layers=self.layers,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
            )
        except ValueError as error:
            raise WrongUse(str(error)) from error


@dataclass(frozen=True)
class SASRecConfig(BaselineConfig):
    """One run of SASRec.

    Attributes:
        loss: "softmax", over `candidates` drawn items of the target's domain; "bce", the original: one negative for each
            target, and `candidates` must be 0.
    """

    loss: str = "softmax"

    def _check_candidates(self) -> None:
        if self.loss not in ("bce", "softmax"):
            raise WrongUse(f"loss: must be bce or softmax, got {self.loss}")
        if self.loss == "softmax":
            super()._check_candidates()
        elif self.candidates:
            raise WrongUse(f"candidates: bce compares with one negative: must be 0, got {self.candidates}")


@dataclass(frozen=True)
class PerDomainConfig(SASRecConfig):
    """One run of SASRec for each domain alone; every value holds for each of them."""

    def of_one_domain(self) -> SASRecConfig:
        """The config of one of these runs."""
        return SASRecConfig(**asdict(self))


@dataclass(frozen=True)
class MMoEConfig(BaselineConfig):
    """One run of MMoE.

    Attributes:
        experts: that all domains share.
    """

    experts: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "experts")


@dataclass(frozen=True)
class PLEConfig(BaselineConfig):
    """One run of PLE.

    Attributes:
        shared_experts: that all domains share.
        domain_experts: of each domain, that no other domain reads.
    """

    shared_experts: int = 2
    domain_experts: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "shared_experts", "domain_experts")


def _at_least_one(config: LoopConfig, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise WrongUse(f"{name}: must be at least 1, got {getattr(config, name)}")


def sasrec() -> SASRecConfig:
    """SASRec with its original loss."""
    return SASRecConfig(loss="bce", candidates=0)


def sasrec_softmax() -> SASRecConfig:
    """SASRec with a sampled softmax, which is worth more than most architectures."""
    return SASRecConfig()


def sasrec_per_domain() -> PerDomainConfig:
    """SASRec with its original loss, for each domain alone."""
    return PerDomainConfig(loss="bce", candidates=0)


def sasrec_softmax_per_domain() -> PerDomainConfig:
    """SASRec with a sampled softmax, for each domain alone: what crossing domains has to beat."""
    return PerDomainConfig()
