"""The one door to ONNX Runtime: telemetry off, and exactly one of its two distributions installed."""

import os
from importlib.metadata import PackageNotFoundError, distribution
from types import ModuleType

from formats.errors import WorkFailed


def import_onnxruntime() -> ModuleType:
    """The `onnxruntime` module.

    From 1.29 on, ONNX Runtime for Linux uploads usage data by default and writes a device id into the home folder at
    import. The switch works only before the first import, so nothing else in this project imports it (ruff refuses).

    Raises:
        WorkFailed: none or both of onnxruntime and onnxruntime-gpu are installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _is_installed(name)]
    if len(installed) == 2:
        raise WorkFailed(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files: "
            "pip uninstall -y onnxruntime onnxruntime-gpu, then install syncrec[cpu] or syncrec[gpu]"
        )
    if not installed:
        raise WorkFailed("ONNX Runtime is not installed: install syncrec[cpu], or syncrec[gpu] for NVIDIA GPUs")
    import onnxruntime  # noqa: PLC0415, TID251 (after the switch above, and only here)

    return onnxruntime  # type: ignore[no-any-return]


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
