"""Arrays of a bundle as .npy files: written in C order, read by mapping them, so that processes share one copy. No pickles."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.errors import WorkFailed

HEADER_BYTES = 128


def write_array(file: Path, array: NDArray[Any]) -> None:
    """Write what `map_array` reads, of numbers in little-endian order.

    Args:
        file: a new file.
        array: of at least two dimensions.
    """
    with file.open("wb") as stream:  # not np.save: on a full disk it raises an OSError that does not say so
        stream.write(_header(array.dtype, array.shape))
        stream.write(np.ascontiguousarray(array).data)


def map_array(file: Path, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Map an array of this type and shape, read-only.

    Raises:
        WorkFailed: it is missing, or another array; names the file and what in it does not fit.
    """
    kind = np.dtype(dtype)
    wanted = _header(kind, shape)
    try:
        with file.open("rb") as stream:
            header, size = stream.read(HEADER_BYTES), stream.seek(0, 2)
    except OSError as error:
        raise WorkFailed(f"{file}: {error.strerror}") from error
    # Compared, not parsed: numpy's reader evaluates what stands there, and damage makes it raise half a dozen different errors.
    if header != wanted:
        raise WorkFailed(f"{file}: header: {_readable(header)}, not {_readable(wanted)}")
    if size != HEADER_BYTES + kind.itemsize * int(np.prod(shape)):
        raise WorkFailed(f"{file}: size: {size} bytes do not hold {_readable(wanted)}")
    mapped = np.memmap(file, dtype=kind, mode="r", offset=HEADER_BYTES, shape=shape)
    return mapped.view(np.ndarray)  # what is computed from an np.memmap is one, too, though nothing is mapped


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What np.save writes before such an array."""
    text = f"{{'descr': {dtype.str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00v\x00" + text.ljust(HEADER_BYTES - 11).encode() + b"\n"  # v: so many bytes follow, 118


def _readable(header: bytes) -> str:
    return repr(header[10:].decode("ascii", errors="replace").strip())
