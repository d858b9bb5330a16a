"""What a run serves, as the module that is exported."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.bundle import MAX_K
from model.mixed_ranker import MixedRanker, Mixture, Weights
from model.ranker import Ranker
from training.dataset import Dataset
from training.manifest import PARTS
from training.members import HALF_LIVES, RECENT
from training.memory_based.newest_events import MICROSECONDS_PER_DAY
from training.methods import syncrec_of
from training.run import TrainedRun
from training.served import served_mixture, serves_mixture


@dataclass(frozen=True)
class ServedRanker:
    """The module, on the CPU and in evaluation mode.

    ranker: encoded histories -> the best items.
    half_lives: of the members that count recent events and have a weight in some domain, in days.
    recent: its input `recent` on the day after the dataset's newest event, [half-lives, items + 2]; no rows if it has none.
    mixture: domain -> member -> weight; None if it serves CDSR alone.
    """

    ranker: Ranker | MixedRanker
    half_lives: tuple[float, ...]
    recent: NDArray[np.float32]
    mixture: dict[str, Weights] | None


def served_ranker(trained: TrainedRun) -> ServedRanker:
    """The module of a run.

    Raises:
        WorkFailed: the run is not SyNCRec's, or its weights are missing or damaged.
    """
    dataset, network = trained.dataset, syncrec_of(trained.objective).network
    sizes = dataset.items_per_domain
    if not serves_mixture(trained.run.config):
        return ServedRanker(Ranker(network, sizes, MAX_K).eval(), (), np.zeros((0, 0), dtype=np.float32), None)
    found = served_mixture(trained)
    members, weights = found.members, found.weights
    rows = [row for row, name in enumerate(RECENT) if any(of_domain[name] > 0 for of_domain in weights)]
    mixture = Mixture(network, members.neighbours(weights), sizes, [RECENT[row] for row in rows], weights)
    recent = members.recent_counts(_newest_day(dataset) + 1)[rows]
    return ServedRanker(
        MixedRanker(mixture, MAX_K).eval(),
        tuple(HALF_LIVES[row] for row in rows),
        recent,
        dict(zip(dataset.domains, mixture.weights, strict=True)),
    )


def _newest_day(dataset: Dataset) -> int:
    newest = max(int(table.timestamp.max()) for table in map(dataset.part, PARTS) if table.events)
    return newest // MICROSECONDS_PER_DAY
