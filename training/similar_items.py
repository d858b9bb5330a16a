"""What the bundle says of similar items: the network's vectors, and the neighbours of item kNN.

Why both: docs/decisions/0012-similar-items.md.
"""

import numpy as np
from numpy.typing import NDArray

from formats.neighbours import NEIGHBOURS_KEPT
from training.dataset import Dataset
from training.members import KNN_DAMPING, KNN_HISTORY, KNN_PAIRS
from training.memory_based.groups import largest_of_each, place_in_group
from training.memory_based.item_knn import ItemKnnConfig, fit_item_knn


def unit_vectors(table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The vectors of all items, each brought to length 1; a vector of zeros stays one.

    Args:
        table: of padding, items and SOS, [items + 2, dim].
    Returns:
        [items, dim].
    """
    rows = table[1:-1]
    lengths: NDArray[np.float32] = np.linalg.norm(rows, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    units: NDArray[np.float32] = rows / lengths
    return units


def strongest_neighbours(dataset: Dataset) -> NDArray[np.int32]:
    """The neighbours of all items by item kNN as the mixture has it, the strongest first, of equal ones the lower item index.

    Returns:
        item indices, 0 where there are fewer, [items, domain, NEIGHBOURS_KEPT].
    """
    config = ItemKnnConfig(NEIGHBOURS_KEPT, KNN_PAIRS, KNN_HISTORY, KNN_DAMPING, history=1, cross_domain=True)
    knn = fit_item_knn(dataset, config)
    found = np.zeros((dataset.items + 1, len(dataset.domains), NEIGHBOURS_KEPT), dtype=np.int32)
    for number, columns in enumerate(knn.columns):
        weights = knn.weights[number]
        row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
        best = largest_of_each(weights.data, row, NEIGHBOURS_KEPT)
        found[row[best], number, place_in_group(row[best])] = weights.indices[best] + columns.start
    return found[1:]
