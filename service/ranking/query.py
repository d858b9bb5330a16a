"""What a ranker is asked and what it answers, whether the model ranks or popularity does."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Query:
    """One request, in item indices.

    history: oldest first, 0 where unknown, [events].
    exclude: items that must not be answered, [any length]; wins over `include`.
    restricted: per domain of the catalogue, whether only `include` may be answered there.
    include: items that may be answered in restricted domains, [any length].
    k: items per domain.
    """

    history: NDArray[np.int32]
    exclude: NDArray[np.int32]
    restricted: tuple[bool, ...]
    include: NDArray[np.int32]
    k: int


@dataclass(frozen=True)
class DomainList:
    """The answer in one domain, best first; shorter than k only where no more candidates are left."""

    item_index: list[int]
    scores: NDArray[np.float32]
