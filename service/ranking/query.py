"""What a ranker is asked and what it answers, whether the model ranks or popularity does."""

from collections.abc import Sequence
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
    exclude_new: per domain, new items that must not be answered, as `RankedDomain.item_index` has them.
    """

    history: NDArray[np.int32]
    exclude: NDArray[np.int32]
    restricted: tuple[bool, ...]
    include: NDArray[np.int32]
    k: int
    exclude_new: tuple[NDArray[np.int32], ...] = ()


@dataclass(frozen=True)
class DomainList:
    """The answer in one domain, best first; shorter than k only where no more candidates are left.

    item_index: of the catalogue; -1 - n for new item n, which is in no catalogue.
    scores: falling, [items].
    new_ids: item id of each new item of the domain.
    """

    item_index: list[int]
    scores: NDArray[np.float32]
    new_ids: Sequence[str] = ()
