"""What is asked of every recommender of a dataset: which cases, which candidates, and whether seen items are among them."""

import numpy as np
from numpy.typing import NDArray

from training.cases import Cases
from training.dataset import Dataset
from training.ranking import Catalogue


def catalogue_of(dataset: Dataset) -> Catalogue:
    """Sizes and popularity of the training catalogue."""
    popularity = dataset.catalogue()["popularity"].to_numpy().astype(np.float32)
    return Catalogue(dataset.items_per_domain, np.concatenate([[np.float32(0)], popularity]))


def drops_repeats(dataset: Dataset) -> bool:
    """Whether the task is the first event of a user with an item; then seen items are no candidates."""
    return bool(dataset.manifest.options["repeats"] == "drop")


def drawn_cases(cases: Cases, per_domain: int | None, seed: int) -> NDArray[np.int64]:
    """Numbers of at most so many cases of each domain, in order; None = all."""
    if per_domain is None:
        return np.arange(len(cases))
    order = np.random.default_rng((seed, 3)).permutation(len(cases))
    domain = cases.target_domain[order]
    drawn = [order[domain == number][:per_domain] for number in np.unique(domain)]
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *drawn]))
