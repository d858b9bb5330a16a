"""Everything that a training run can be told, and SyNCRec's presets."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from formats.errors import WrongUse
from model.config import SyNCRecConfig
from model.negative_transfer import NegativeTransferGap


@dataclass(frozen=True)
class RunConfig(ABC):
    """What every run is told.

    Attributes:
        validation_cases: at most so many validation events are scored at a time, the same ones each time.
        seed: of everything that is drawn.
    """

    validation_cases: int = 3000
    seed: int = 42

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise WrongUse(f"seed: must be at least 0, got {self.seed}")
        if self.validation_cases < 1:
            raise WrongUse(f"validation_cases: must be at least 1, got {self.validation_cases}")

    @abstractmethod
    def network(self, items_per_domain: tuple[int, ...]) -> Any:
        """The sizes of the network for this catalogue, if there is one.

        Raises:
            WrongUse: they contradict each other.
        """


@dataclass(frozen=True)
class LoopConfig(RunConfig):
    """What the training loop is told, whatever network it trains.

    Attributes:
        dim, heads, layers, dropout, attention_dropout: of the network; see `model.config`.
        max_history: events that the network reads of a history (L).
        candidates: items drawn per domain and step that all its targets are compared with (softmax); 0: one negative for
            each target.
        every_window: train on the whole history in windows; otherwise on its newest window only, as the public code does.
        batch_windows: windows per step, over all processes.
        learning_rate: of Adam.
        epochs: at most so many.
        patience: stop after so many epochs without a better validation.
        max_minutes: stop after the epoch in which so many minutes of training are over, those before a resumption included;
            0: never. With it a run depends on the machine's speed.
    """

    dim: int = 64
    heads: int = 2
    layers: int = 2
    dropout: float = 0.5
    attention_dropout: float = 0.0
    max_history: int = 50
    candidates: int = 512
    every_window: bool = True
    batch_windows: int = 128
    learning_rate: float = 1e-3
    epochs: int = 100
    patience: int = 5
    max_minutes: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.candidates < 0:
            raise WrongUse(f"candidates: must be at least 0, got {self.candidates}")
        for name in ("batch_windows", "epochs", "patience"):
            if getattr(self, name) < 1:
                raise WrongUse(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.max_minutes < math.inf:
            raise WrongUse(f"max_minutes: must be at least 0, got {self.max_minutes}")
        if not 0 < self.learning_rate < math.inf:
            raise WrongUse(f"learning_rate: must be above 0, got {self.learning_rate}")


@dataclass(frozen=True)
class TrainingConfig(LoopConfig):
    """One run of SyNCRec. Written beside the run and into the bundle.

    Attributes:
        experts: number of experts (K).
        single_experts: experts that learn from SDSR only (j); the paper found 20 % of K best.
        stop_gradient: off, both tasks teach all experts, for the ablation: the paper's method without ACMoE.
        gap_momentum: m of the running mean of the gaps (lambda).
        temperature: of the softmax that turns lambda into loss weights; gaps are often far below 1.
        weight_floor: share of the weights that is spread evenly, so that no domain starves.
        mutual_information: weight of SC-MIM in the loss (eta).
        mixture: serve, per domain, a mixture of both towers, recent popularity and item kNN, weighted on validation;
            otherwise CDSR alone, as the paper does.
    """

    experts: int = 3
    single_experts: int = 1
    stop_gradient: bool = True
    gap_momentum: float = 0.9
    temperature: float = 1.0
    weight_floor: float = 0.05
    mutual_information: float = 0.1
    mixture: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.mutual_information < math.inf:
            raise WrongUse(f"mutual_information: must be at least 0, got {self.mutual_information}")
        self.gap(1)

    def network(self, items_per_domain: tuple[int, ...]) -> SyNCRecConfig:
        """The sizes of the network for this catalogue.

        Raises:
            WrongUse: they contradict each other.
        """
        try:
            return SyNCRecConfig(
                items_per_domain=items_per_domain,
                max_history=self.max_history,
                dim=self.dim,
                heads=self.heads,
                layers=self.layers,
                experts=self.experts,
                single_experts=self.single_experts,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                stop_gradient=self.stop_gradient,
            )
        except ValueError as error:
            raise WrongUse(str(error)) from error

    def gap(self, domains: int) -> NegativeTransferGap:
        """The gaps and weights of so many domains, nothing measured yet.

        Raises:
            WrongUse: the weights would make no sense.
        """
        try:
            return NegativeTransferGap(domains, self.gap_momentum, self.temperature, self.weight_floor)
        except ValueError as error:
            raise WrongUse(str(error)) from error


def default() -> TrainingConfig:
    """Sizes that a laptop trains in minutes."""
    return TrainingConfig()


def paper() -> TrainingConfig:
    """The public training command of the paper's authors; epochs by early stopping instead of a fixed number."""
    return TrainingConfig(
        dim=512,
        heads=1,
        attention_dropout=0.5,
        gap_momentum=0.9,
        temperature=1.0,
        weight_floor=0.0,
        mutual_information=1.0,
        experts=5,
        mixture=False,
        candidates=0,
        every_window=False,
        batch_windows=512,
        epochs=1000,
        patience=10,
    )
