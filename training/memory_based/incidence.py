"""Who has what, as a sparse matrix."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


def incidence(column: NDArray[np.int32], offsets: NDArray[np.int64], columns: int) -> Any:
    """Sparse zeros and ones, sorted, [rows, columns]: row r has ones in column[offsets[r] : offsets[r + 1]], however often."""
    # A copy, because duplicates are summed in place.
    matrix = csr_array((np.ones(len(column)), column, offsets), shape=(len(offsets) - 1, columns), copy=True)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return matrix
