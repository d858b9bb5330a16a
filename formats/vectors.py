"""`vectors.npy` of a bundle: one vector per item, whose products say how alike items are, of one domain or of two.

float32, [items, dim]; row n is of item_index n + 1. Each has length 1, so that a product is a cosine, or is all zeros: of such an
item nothing is known, and it is neither like nor unlike any other.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formats.arrays import map_array
from formats.errors import WorkFailed

VECTORS = "vectors.npy"
# Rounding of float32 is four orders below; a vector that was never brought to length 1 is far above.
TOLERANCE = 1e-3
# Rows whose lengths are computed at a time: it bounds the memory of a check.
BLOCK = 65_536


def read_vectors(file: Path, items: int, dim: int) -> NDArray[np.float32]:
    """Map the vectors of so many items, [items, dim].

    Raises:
        WorkFailed: names the file and what in it does not fit.
    """
    vectors: NDArray[np.float32] = map_array(file, "<f4", (items, dim))
    for first in range(0, items, BLOCK):
        _check_lengths(file, vectors, first)
    return vectors


def _check_lengths(file: Path, vectors: NDArray[np.float32], first: int) -> None:
    block = vectors[first : first + BLOCK]
    lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
    wrong = np.flatnonzero(~((np.abs(lengths - 1) <= TOLERANCE) | (lengths == 0)))  # NaN is wrong, too
    if len(wrong):
        row = int(wrong[0])
        raise WorkFailed(f"{file}: row {first + row}: length {lengths[row]:.6g} is neither 1 nor 0")
