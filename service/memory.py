"""What the C library does with freed memory: a closed model's goes back to the system, not to the threads that made it."""

import ctypes
import gc

# Of glibc's mallopt. A block from this size on is a mapping of its own, gone when it is freed. Left alone, glibc raises the limit
# with every large block that is freed, to 32 MB; then each thread that ever loaded a model keeps the room of one.
M_MMAP_THRESHOLD = -3
LARGE_BLOCK_BYTES = 2**20


def give_large_blocks_back() -> None:
    """From now on, in this process. Nothing happens where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def give_memory_back() -> None:
    """What is free or in unreachable cycles."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
