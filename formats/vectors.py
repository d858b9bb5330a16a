"""`vectors.npy` of a bundle: one vector per item, whose products say how alike items are, of one domain or of two.

float32, C order, [items, dim]; row n is of item_index n + 1. Each has length 1, so that a product is a cosine, or is all zeros: of
such an item nothing is known and it is like no other. The file is memory-mapped: processes share it.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from formats.errors import WorkFailed

VECTORS = "vectors.npy"
HEADER_BYTES = 128
# Rounding of float32 is four orders below; a vector that was never brought to length 1 is far above.
TOLERANCE = 1e-3
# Rows whose lengths are computed at a time: it bounds the memory of a check.
BLOCK = 65_536


def write_vectors(file: Path, vectors: NDArray[np.float32]) -> None:
    """Write what `read_vectors` reads and checks.

    Args:
        file: a new file.
        vectors: [items, dim].
    """
    rows = np.ascontiguousarray(vectors, dtype="<f4")
    with file.open("wb") as stream:  # not np.save: on a full disk it raises an OSError that does not say so
        stream.write(_header(*rows.shape))
        stream.write(rows.data)


def read_vectors(file: Path, items: int, dim: int) -> NDArray[np.float32]:
    """Map the vectors of so many items, [items, dim], read-only.

    Raises:
        WorkFailed: names the file and what in it does not fit.
    """
    wanted = _header(items, dim)
    try:
        with file.open("rb") as stream:
            header, size = stream.read(HEADER_BYTES), stream.seek(0, 2)
    except OSError as error:
        raise WorkFailed(f"{file}: {error.strerror}") from error
    # Compared, not parsed: numpy's reader evaluates what stands there, and damage makes it raise a dozen different errors.
    if header != wanted:
        raise WorkFailed(f"{file}: header: {_readable(header)}, not {_readable(wanted)}")
    if size != len(wanted) + 4 * items * dim:
        raise WorkFailed(f"{file}: size: {size} bytes do not hold {items} items of dim {dim}")
    mapped = np.memmap(file, dtype="<f4", mode="r", offset=len(wanted), shape=(items, dim))
    vectors = mapped.view(np.ndarray)  # what is computed from an np.memmap is one, too, though nothing is mapped
    for first in range(0, items, BLOCK):
        _check_lengths(file, vectors, first)
    return vectors


def _header(items: int, dim: int) -> bytes:
    """What np.save writes before such an array."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({items}, {dim}), }}"
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(HEADER_BYTES - 11).encode() + b"\n"  # v: so many bytes follow, 118


def _readable(header: bytes) -> str:
    return repr(header[10:].decode("ascii", errors="replace").strip())


def _check_lengths(file: Path, vectors: NDArray[np.float32], first: int) -> None:
    block = vectors[first : first + BLOCK]
    lengths = np.sqrt(np.einsum("ij,ij->i", block, block))
    wrong = np.flatnonzero(~((np.abs(lengths - 1) <= TOLERANCE) | (lengths == 0)))  # NaN is wrong, too
    if len(wrong):
        row = int(wrong[0])
        raise WorkFailed(f"{file}: row {first + row}: length {lengths[row]:.6g} is neither 1 nor 0")
