"""OnnxSession: the bundle's graph in ONNX Runtime, on the provider that was asked for or not at all."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from formats.bundle import Bundle
from formats.errors import WorkFailed
from formats.runtime import import_onnxruntime
from service.settings import Providers

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
OUTPUTS = ["scores", "item_index"]


@dataclass(frozen=True)
class Batch:
    """The graph's inputs, `formats.bundle.graph_inputs`."""

    history: NDArray[np.int32]  # [batch, slots]
    exclude: NDArray[np.int32]  # [batch, excluded]
    restricted: NDArray[np.bool_]  # [batch, domains]
    include: NDArray[np.int32]  # [batch, included]
    k: int
    recent: NDArray[np.float32]  # [half-lives, items + 2]; no rows if the graph reads none


@dataclass(frozen=True)
class OnnxSession:
    """One session; only one thread may call `run`.

    asked: the setting.
    got: what runs the graph.
    """

    asked: Providers
    got: str
    _session: Any

    def run(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Scores, falling, and item indices of the best k items per domain, each [batch, domains, k]."""
        feed: dict[str, NDArray[Any]] = {
            "history": batch.history,
            "exclude": batch.exclude,
            "restricted": batch.restricted,
            "include": batch.include,
            "k": np.array(batch.k, dtype=np.int64),
        }
        if len(batch.recent):
            feed["recent"] = batch.recent
        scores, item_index = self._session.run(OUTPUTS, feed)
        return scores, item_index


def open_session(bundle: Bundle, asked: Providers, threads: int) -> OnnxSession:
    """Load the graph.

    Args:
        bundle: whose graph.
        asked: `cpu`, `cuda` or `tensorrt`: this one or a failure. `auto`: CUDA if it works, else CPU.
        threads: threads within one operation.
    Raises:
        WorkFailed: the graph cannot be loaded, or runs on something else than was asked for.
    """
    onnxruntime = import_onnxruntime()
    onnxruntime.set_default_logger_severity(4)  # fatal: what matters is raised or checked below, in one line
    wanted = _providers(asked, onnxruntime.get_available_providers())
    if wanted[0] != CPU and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # without it the CUDA libraries from PyPI are not found
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin take the cores that parsing needs: 671 against 328 microseconds a request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a provider is missing: what was got is looked at below
            session = onnxruntime.InferenceSession(bundle.graph, sess_options=options, providers=wanted)
    except Exception as error:  # ONNX Runtime's errors have no common base below Exception
        raise WorkFailed(f"{bundle.graph}: ONNX Runtime cannot load it: {_one_line(error)}") from error
    # Decided by what the session runs on, never by get_available_providers(): the GPU wheel lists CUDA without a GPU.
    got = session.get_providers()[0]
    if asked != "auto" and got != wanted[0]:
        raise WorkFailed(f"SYNCREC_PROVIDERS={asked}: {wanted[0]} does not work here, ONNX Runtime took {got}")
    return OnnxSession(asked, got, session)


def _providers(asked: Providers, available: list[str]) -> list[str]:
    if asked == "auto":
        return [CUDA, CPU] if CUDA in available else [CPU]
    return {"cpu": [CPU], "cuda": [CUDA, CPU], "tensorrt": [TENSORRT, CUDA, CPU]}[asked]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
