"""Child processes that do not outlive us, however we end."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Runs between fork and the program, in place of preexec_fn, which can deadlock where threads run. Asks the kernel for
# SIGTERM when the starting thread ends, and leaves if that happened before it could ask.
_LAUNCHER = """
import os, sys
parent, program, *arguments = sys.argv[1:]
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None, use_errno=True).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
    if os.getppid() != int(parent):
        sys.exit(1)
os.execv(program, [program, *arguments])
"""


def end_with_parent() -> None:
    """Let the kernel end this process by SIGTERM when the one that started it ends, however that happens (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextmanager
def child_process(command: Sequence[str], stop_timeout_s: float, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, then SIGTERM, and SIGKILL if that does not do.

    On Linux it also ends when the *thread* that called this ends, even by SIGKILL; call it from a long-lived one.

    Args:
        command: path of the program and its arguments.
        stop_timeout_s: time between SIGTERM and SIGKILL.
        options: of subprocess.Popen.
    """
    launched = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
    process = subprocess.Popen(launched, stdin=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(stop_timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
