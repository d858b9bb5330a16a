"""Everything that a training of a baseline can be told."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from formats.errors import WrongUse
from model.config import NetworkSizes
from model.negative_transfer import NegativeTransferGap
from training.baselines.cooperative_game import MOST_DOMAINS
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
        with _as_wrong_use():
            return NetworkSizes(
                items_per_domain=items_per_domain,
                max_history=self.max_history,
                dim=self.dim,
                heads=self.heads,
                layers=self.layers,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
            )


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
    """One run of SASRec for each domain alone; every value holds for each of them.

    Attributes:
        domain_epochs: `epochs` of each domain in order, with commas between; empty: the same for all.
    """

    domain_epochs: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(word.isdecimal() and int(word) for word in self.domain_epochs.split(",") if self.domain_epochs):
            raise WrongUse(f"domain_epochs: must be numbers above 0 with commas between, got {self.domain_epochs}")

    def of_domain(self, number: int) -> SASRecConfig:
        """The config of one of these runs, by the domain's number from 1.

        Raises:
            WrongUse: `domain_epochs` says nothing of this domain.
        """
        values = asdict(self)
        epochs = list(map(int, filter(None, values.pop("domain_epochs").split(","))))
        if epochs and number > len(epochs):
            raise WrongUse(f"domain_epochs: says nothing of domain number {number}: {self.domain_epochs}")
        return SASRecConfig(**{**values, **({"epochs": epochs[number - 1]} if epochs else {})})


@dataclass(frozen=True)
class StaticConfig(BaselineConfig):
    """One run of SASRec with a softmax, domains weighted by their sizes.

    Attributes:
        exponent: a in w_d proportional to n_d^a: 0 is every domain the same, 1 every event.
    """

    exponent: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.exponent):
            raise WrongUse(f"exponent: must be a number, got {self.exponent}")


@dataclass(frozen=True)
class FamoConfig(BaselineConfig):
    """One run of SASRec with a softmax, domains weighted by FAMO.

    Attributes:
        weight_rate: learning rate of the weights.
        weight_decay: pulls the weights back to equal ones.
    """

    weight_rate: float = 0.025
    weight_decay: float = 0.001

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.weight_rate < math.inf:
            raise WrongUse(f"weight_rate: must be above 0, got {self.weight_rate}")
        if not 0 <= self.weight_decay < math.inf:
            raise WrongUse(f"weight_decay: must be at least 0, got {self.weight_decay}")


@dataclass(frozen=True)
class PCGradConfig(BaselineConfig):
    """One run of SASRec with a softmax, conflicting gradients of domains projected by PCGrad."""


@dataclass(frozen=True)
class ShapleyConfig(BaselineConfig):
    """One run of SASRec with a softmax, domains weighted by what they contribute to others.

    Attributes:
        every_steps: contributions are measured every so many steps, by 2^D passes over the batch.
        gap_momentum, temperature, weight_floor: of the running mean of the contributions and of the weights made of it; see
            `training.config.TrainingConfig`.
    """

    every_steps: int = 10
    gap_momentum: float = 0.9
    temperature: float = 1.0
    weight_floor: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        _at_least_one(self, "every_steps")
        self.correction(1)

    def correction(self, domains: int) -> NegativeTransferGap:
        """What makes weights of so many domains' contributions.

        Raises:
            WrongUse: the weights would make no sense.
        """
        with _as_wrong_use():
            return NegativeTransferGap(domains, self.gap_momentum, self.temperature, self.weight_floor)

    def network(self, items_per_domain: tuple[int, ...]) -> NetworkSizes:
        """The sizes of the network for this catalogue.

        Raises:
            WrongUse: they contradict each other, or the domains have too many coalitions.
        """
        if len(items_per_domain) > MOST_DOMAINS:
            raise WrongUse(
                f"Shapley values are exact here, over at most {MOST_DOMAINS} domains; the dataset has {len(items_per_domain)}"
            )
        return super().network(items_per_domain)


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


@dataclass(frozen=True)
class BERT4RecConfig(BaselineConfig):
    """One run of BERT4Rec.

    Attributes:
        mask_share: of a window's events that are hidden and predicted.
    """

    mask_share: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mask_share < 1:
            raise WrongUse(f"mask_share: must be above 0 and below 1, got {self.mask_share}")


@contextmanager
def _as_wrong_use() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise WrongUse(str(error)) from error


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


def bert4rec() -> BERT4RecConfig:
    """BERT4Rec learns from few events of each window, so it takes several times the epochs of the others."""
    return BERT4RecConfig(epochs=1000, patience=20)
