"""Recommenders without a training loop as runs: a config that stands in run.json, and an objective without parameters."""

from abc import abstractmethod
from dataclasses import dataclass

from training.batches import Batch
from training.config import RunConfig
from training.dataset import Dataset
from training.memory_based.decay import HistoryDecay, PlaceDecay, TimeDecay
from training.memory_based.ease import EaseConfig, fit_ease
from training.memory_based.item_knn import ItemKnnConfig, fit_item_knn
from training.memory_based.recent_popularity import RecentPopularityConfig, fit_recent_popularity
from training.memory_based.v_sknn import VSknnConfig, fit_v_sknn
from training.objective import Objective, StepLosses
from training.processes import Processes
from training.ranking import Catalogue, Scorer


@dataclass(frozen=True)
class MemoryBasedConfig(RunConfig):
    """A run that only remembers the training events."""

    def network(self, items_per_domain: tuple[int, ...]) -> None:
        """There is none."""

    @abstractmethod
    def fit(self, dataset: Dataset) -> Scorer:
        """Count what has to be counted."""


@dataclass(frozen=True)
class RecentPopularityRun(MemoryBasedConfig):
    """`training.memory_based.recent_popularity`; 0 stands for the one of the two that is not used."""

    window_days: int = 7
    half_life_days: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._config()

    def fit(self, dataset: Dataset) -> Scorer:
        """Count events by day."""
        return fit_recent_popularity(dataset, self._config()).scorer

    def _config(self) -> RecentPopularityConfig:
        return RecentPopularityConfig(self.half_life_days or None, self.window_days or None)


@dataclass(frozen=True)
class ItemKnnRun(MemoryBasedConfig):
    """`training.memory_based.item_knn`.

    Attributes:
        history_half_life_days: an event of the history weighs by its age; 0: by its place, `history_factor`.
        history_factor: see `PlaceDecay`.
        floor: of both time decays.
    """

    neighbours: int = 200
    pair_half_life_days: float = 30.0
    history_half_life_days: float = 14.0
    history_factor: float = 0.9
    floor: float = 0.02
    damping: float = 0.25
    history: int = 50
    cross_domain: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._config()

    def fit(self, dataset: Dataset) -> Scorer:
        """Count pairs."""
        return fit_item_knn(dataset, self._config()).scorer

    def _config(self) -> ItemKnnConfig:
        by_age: HistoryDecay = PlaceDecay(self.history_factor)
        if self.history_half_life_days:
            by_age = TimeDecay(self.history_half_life_days, self.floor)
        pairs = TimeDecay(self.pair_half_life_days, self.floor)
        return ItemKnnConfig(self.neighbours, pairs, by_age, self.damping, self.history, self.cross_domain)


@dataclass(frozen=True)
class VSknnRun(MemoryBasedConfig):
    """`training.memory_based.v_sknn`."""

    neighbours: int = 100
    sample: int = 500
    session: int = 20
    idf_weight: float = 1.0
    cross_domain: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._config()

    def fit(self, dataset: Dataset) -> Scorer:
        """Cut sessions."""
        return fit_v_sknn(dataset, self._config()).scorer

    def _config(self) -> VSknnConfig:
        return VSknnConfig(self.neighbours, self.sample, self.session, self.idf_weight, self.cross_domain)


@dataclass(frozen=True)
class EaseRun(MemoryBasedConfig):
    """`training.memory_based.ease`."""

    regularization: float = 100.0
    max_items: int = 12_000

    def __post_init__(self) -> None:
        super().__post_init__()
        self._config()

    def fit(self, dataset: Dataset) -> Scorer:
        """Invert the Gram matrices."""
        return fit_ease(dataset, self._config()).scorer

    def _config(self) -> EaseConfig:
        return EaseConfig(self.regularization, self.max_items)


class MemoryBased(Objective):
    """The scorer of such a run."""

    def __init__(self, scorer: Scorer) -> None:
        super().__init__()
        self.scorer = scorer

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:  # noqa: ARG002 (nothing is learned)
        """Nothing is learned.

        Raises:
            TypeError: always.
        """
        raise TypeError("nothing is trained here")

    def scorers(self, catalogue: Catalogue) -> dict[str, Scorer]:  # noqa: ARG002 (it was fitted on the dataset)
        """The one scorer."""
        return {"memory": self.scorer}

    def per_domain(self) -> dict[str, list[float]]:
        """Nothing: domains have no state."""
        return {}
