"""Places and choices within groups of values that stand together."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def place_in_group(group: Ints) -> Ints:
    """0 for the first of every group, 1 for the next, and so on; groups ascend, [values]."""
    places: Ints = np.arange(len(group)) - np.searchsorted(group, group)
    return places


def largest_of_each(values: NDArray[Any], group: Ints, most: int) -> Ints:
    """Which values are among the `most` largest of their group; of equal ones the earlier.

    Args:
        values: [values].
        group: ascending, [values].
        most: at least 1.
    Returns:
        group by group, the largest first.
    """
    order: Ints = np.lexsort((-values, group))
    # Sorted by value or not, every group fills the same places.
    return order[place_in_group(group) < most]
