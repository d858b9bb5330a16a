"""The methods that can be trained and compared: each has a config, and a way from a dataset to scorers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from formats.errors import WorkFailed
from model.baselines.bert4rec import BERT4Rec
from model.baselines.mmoe import MMoE
from model.baselines.ple import PLE
from model.baselines.sasrec import SASRec
from model.losses import MutualInformation
from model.syncrec import build_syncrec
from training.baselines.config import (
    BERT4RecConfig,
    FamoConfig,
    MMoEConfig,
    PCGradConfig,
    PerDomainConfig,
    PLEConfig,
    SASRecConfig,
    ShapleyConfig,
    StaticConfig,
    bert4rec,
    sasrec,
    sasrec_per_domain,
    sasrec_softmax,
    sasrec_softmax_per_domain,
)
from training.baselines.cooperative_game import ShapleyObjective
from training.baselines.famo import FamoObjective
from training.baselines.gradient_surgery import PCGradObjective
from training.baselines.masked import MaskedObjective
from training.baselines.next_item import TARGET_LOSSES, NextItemObjective
from training.baselines.per_domain import PerDomainObjective
from training.baselines.static import StaticObjective
from training.config import RunConfig, TrainingConfig, default, paper
from training.configured import changed
from training.dataset import Dataset
from training.memory_based.runs import (
    EaseRun,
    ItemKnnRun,
    MemoryBased,
    MemoryBasedConfig,
    RecentPopularityRun,
    VSknnRun,
)
from training.objective import Objective, SyNCRecObjective, next_item_losses


@dataclass(frozen=True)
class Method:
    """A method that is trained by the loop.

    config: its config class.
    build: config and dataset -> the network and its loss, freshly initialised.
    """

    config: type[RunConfig]
    build: Callable[[Any, Dataset], Objective]


def _syncrec(config: TrainingConfig, dataset: Dataset) -> SyNCRecObjective:
    network = build_syncrec(config.network(dataset.items_per_domain))
    gap = config.gap(len(dataset.domains))
    return SyNCRecObjective(network, gap, MutualInformation(config.dim), config.mutual_information, config.max_history)


def _sasrec(config: SASRecConfig, dataset: Dataset) -> NextItemObjective:
    return _sasrec_of(config, dataset.items_per_domain)


def _sasrec_of(config: SASRecConfig, items_per_domain: tuple[int, ...]) -> NextItemObjective:
    network = SASRec(config.network(items_per_domain))
    return NextItemObjective(network, TARGET_LOSSES[config.loss], config.max_history)


def _per_domain(config: PerDomainConfig, dataset: Dataset) -> PerDomainObjective:
    return PerDomainObjective([_sasrec_of(config, (items,)) for items in dataset.items_per_domain])


def _mmoe(config: MMoEConfig, dataset: Dataset) -> NextItemObjective:
    network = MMoE(config.network(dataset.items_per_domain), config.experts)
    return NextItemObjective(network, next_item_losses, config.max_history)


def _ple(config: PLEConfig, dataset: Dataset) -> NextItemObjective:
    network = PLE(config.network(dataset.items_per_domain), config.shared_experts, config.domain_experts)
    return NextItemObjective(network, next_item_losses, config.max_history)


def _static(config: StaticConfig, dataset: Dataset) -> StaticObjective:
    network = SASRec(config.network(dataset.items_per_domain))
    events = np.bincount(dataset.train.domain, minlength=1 + len(dataset.domains))[1:].tolist()
    return StaticObjective(network, config.max_history, events, config.exponent)


def _famo(config: FamoConfig, dataset: Dataset) -> FamoObjective:
    network = SASRec(config.network(dataset.items_per_domain))
    return FamoObjective(network, config.max_history, len(dataset.domains), config.weight_rate, config.weight_decay)


def _pcgrad(config: PCGradConfig, dataset: Dataset) -> PCGradObjective:
    return PCGradObjective(SASRec(config.network(dataset.items_per_domain)), config.max_history)


def _shapley(config: ShapleyConfig, dataset: Dataset) -> ShapleyObjective:
    network = SASRec(config.network(dataset.items_per_domain))
    correction = config.correction(len(dataset.domains))
    return ShapleyObjective(network, config.max_history, dataset.items_per_domain, correction, config.every_steps)


def _bert4rec(config: BERT4RecConfig, dataset: Dataset) -> MaskedObjective:
    network = BERT4Rec(config.network(dataset.items_per_domain))
    return MaskedObjective(network, config.mask_share, config.max_history)


def _memory_based(config: MemoryBasedConfig, dataset: Dataset) -> MemoryBased:
    return MemoryBased(config.fit(dataset))


METHODS = {
    "syncrec": Method(TrainingConfig, _syncrec),
    "sasrec": Method(SASRecConfig, _sasrec),
    "sasrec-per-domain": Method(PerDomainConfig, _per_domain),
    "bert4rec": Method(BERT4RecConfig, _bert4rec),
    "sasrec-static": Method(StaticConfig, _static),
    "sasrec-famo": Method(FamoConfig, _famo),
    "sasrec-pcgrad": Method(PCGradConfig, _pcgrad),
    "sasrec-shapley": Method(ShapleyConfig, _shapley),
    "mmoe": Method(MMoEConfig, _mmoe),
    "ple": Method(PLEConfig, _ple),
    "recent-popularity": Method(RecentPopularityRun, _memory_based),
    "item-knn": Method(ItemKnnRun, _memory_based),
    "v-sknn": Method(VSknnRun, _memory_based),
    "ease": Method(EaseRun, _memory_based),
}

PRESETS: dict[str, Callable[[], RunConfig]] = {
    "default": default,
    "paper": paper,
    "sasrec": sasrec,
    "sasrec-ss": sasrec_softmax,
    "sasrec-per-domain": sasrec_per_domain,
    "sasrec-ss-per-domain": sasrec_softmax_per_domain,
    "bert4rec": bert4rec,
    "sasrec-static": StaticConfig,
    "sasrec-famo": FamoConfig,
    "sasrec-pcgrad": PCGradConfig,
    "sasrec-shapley": ShapleyConfig,
    "mmoe": MMoEConfig,
    "ple": PLEConfig,
    "recent-popularity": RecentPopularityRun,
    "item-knn": ItemKnnRun,
    "v-sknn": VSknnRun,
    "ease": EaseRun,
}


def syncrec_of(objective: Objective) -> SyNCRecObjective:
    """The objective of a SyNCRec run, with its network.

    Raises:
        WorkFailed: it is another method's; those are compared, not served.
    """
    if not isinstance(objective, SyNCRecObjective):
        raise WorkFailed("only SyNCRec is exported and served; other methods are for comparisons")
    return objective


def syncrec_config(config: RunConfig) -> TrainingConfig:
    """The config of a SyNCRec run.

    Raises:
        WorkFailed: it is another method's.
    """
    if not isinstance(config, TrainingConfig):
        raise WorkFailed(
            f"a run of {method_of(config)}: only SyNCRec is exported and served; other methods are for comparisons"
        )
    return config


def method_of(config: RunConfig) -> str:
    """The name of the method that a config belongs to."""
    return next(name for name, method in METHODS.items() if method.config is type(config))


def build_objective(config: RunConfig, dataset: Dataset) -> Objective:
    """Network and losses, initialised from the seed of the config."""
    torch.manual_seed(config.seed)
    return METHODS[method_of(config)].build(config, dataset)


def to_json(config: RunConfig) -> dict[str, Any]:
    """What `from_json` reads."""
    return {"method": method_of(config), **asdict(config)}


def from_json(content: Mapping[str, Any], where: str) -> RunConfig:
    """The config that a run carries.

    Raises:
        WorkFailed: of a method that is not known.
        WrongUse: an unknown key or a value of another type.
    """
    values = dict(content)
    name = values.pop("method")
    if name not in METHODS:
        raise WorkFailed(f"{where}: unknown method {name!r}; known: {', '.join(METHODS)}")
    return changed(METHODS[name].config(), values, where)
