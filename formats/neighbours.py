"""`neighbours.npy` of a bundle: which items users chose near in time to an item, per domain, the strongest first.

int32, [items, domain, NEIGHBOURS_KEPT]; row n is of item_index n + 1, entries are item indices, 0 where there are fewer.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formats.arrays import map_array
from formats.errors import WorkFailed

NEIGHBOURS = "neighbours.npy"
NEIGHBOURS_KEPT = 10


def read_neighbours(file: Path, items_per_domain: Sequence[int]) -> NDArray[np.int32]:
    """Map the neighbours of the items of such domains, [items, domain, NEIGHBOURS_KEPT].

    Raises:
        WorkFailed: names the file and what in it does not fit.
    """
    shape = (sum(items_per_domain), len(items_per_domain), NEIGHBOURS_KEPT)
    neighbours: NDArray[np.int32] = map_array(file, "<i4", shape)
    for number, (first, after) in enumerate(pairwise(accumulate(items_per_domain, initial=1))):
        of_domain = neighbours[:, number]
        wrong = np.flatnonzero(((of_domain != 0) & ((of_domain < first) | (of_domain >= after))).any(axis=1))
        if len(wrong):
            raise WorkFailed(
                f"{file}: row {wrong[0]}: domain {number + 1} has the items {first} to {after - 1}, others stand there"
            )
    return neighbours
