"""Everything that a training run can be told, and its presets."""

import difflib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from formats.errors import WorkFailed, WrongUse
from model.config import SyNCRecConfig
from model.negative_transfer import NegativeTransferGap


@dataclass(frozen=True)
class TrainingConfig:
    """One run. Written beside the run and into the bundle.

    Attributes:
        dim, heads, layers, dropout, attention_dropout: of the network; see `model.config`.
        max_history: events that the network reads of a history (L).
        experts: number of experts (K).
        single_experts: experts that learn from SDSR only (j); the paper found 20 % of K best.
        gap_momentum: m of the running mean of the gaps (lambda).
        temperature: of the softmax that turns lambda into loss weights; gaps are often far below 1.
        weight_floor: share of the weights that is spread evenly, so that no domain starves.
        mutual_information: weight of SC-MIM in the loss (eta).
        every_window: train on the whole history in windows; otherwise on its newest window only, as the public code does.
        batch_windows: windows per step, over all processes.
        learning_rate: of Adam.
        epochs: at most so many.
        patience: stop after so many epochs without a better validation.
        validation_cases: at most so many validation events are scored per epoch, the same ones each time.
        seed: of weights, order, negatives and dropout.
    """

    dim: int = 64
    heads: int = 2
    layers: int = 2
    dropout: float = 0.5
    attention_dropout: float = 0.0
    max_history: int = 50
    experts: int = 5
    single_experts: int = 1
    gap_momentum: float = 0.9
    temperature: float = 1.0
    weight_floor: float = 0.05
    mutual_information: float = 0.1
    every_window: bool = True
    batch_windows: int = 128
    learning_rate: float = 1e-3
    epochs: int = 100
    patience: int = 5
    validation_cases: int = 3000
    seed: int = 42

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise WrongUse(f"seed: must be at least 0, got {self.seed}")
        for name in ("batch_windows", "epochs", "patience", "validation_cases"):
            if getattr(self, name) < 1:
                raise WrongUse(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise WrongUse(f"learning_rate: must be above 0, got {self.learning_rate}")
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
        every_window=False,
        batch_windows=512,
        epochs=1000,
        patience=10,
    )


PRESETS = {"default": default, "paper": paper}


def configured(preset: str, file: Path | None, assignments: Sequence[str]) -> TrainingConfig:
    """A preset, changed by a TOML or JSON file, changed by `key=value` words.

    Raises:
        WrongUse: an unknown key (the nearest known one is named) or a value of another type.
    """
    config = PRESETS[preset]()
    if file is not None:
        config = _changed(config, _read(file), str(file))
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals:
            raise WrongUse(f"--set {word}: must be key=value")
        config = _changed(config, {key: text}, "--set")
    return config


def from_json(content: Mapping[str, Any], where: str) -> TrainingConfig:
    """The config that a run or bundle carries."""
    return _changed(TrainingConfig(), content, where)


def to_json(config: TrainingConfig) -> dict[str, Any]:
    """What `from_json` reads."""
    return asdict(config)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        text = file.read_text()
        content = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:  # both parsers' errors are ValueErrors
        raise WorkFailed(f"{file}: {error}") from error
    if not isinstance(content, dict):
        raise WorkFailed(f"{file}: must hold key = value pairs")
    return content


def _changed(config: TrainingConfig, changes: Mapping[str, Any], where: str) -> TrainingConfig:
    known = {field.name: type(getattr(config, field.name)) for field in fields(config)}
    values: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise WrongUse(f"{where}: unknown key '{key}'; {hint}")
        values[key] = _as(known[key], value, f"{where}: {key}")
    return replace(config, **values)


def _as(kind: type, value: object, where: str) -> object:
    if isinstance(value, str):
        try:
            return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError) as error:
            raise WrongUse(f"{where}: '{value}' is no {kind.__name__}") from error
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise WrongUse(f"{where}: {value!r} is no {kind.__name__}")
    return value
