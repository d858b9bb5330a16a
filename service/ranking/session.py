"""OnnxSession: the bundle's graph in ONNX Runtime on the CPU, and what every session of it has in common."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

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

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What every graph reads, by name: all but `k`."""
        feed: dict[str, NDArray[Any]] = {
            "history": self.history,
            "exclude": self.exclude,
            "restricted": self.restricted,
            "include": self.include,
        }
        if len(self.recent):
            feed["recent"] = self.recent
        return feed


class GraphSession(Protocol):
    """Something that runs the graph; only one thread may call `run`, the one that opened it."""

    @property
    def asked(self) -> Providers:
        """The setting."""

    @property
    def got(self) -> str:
        """What runs the graph."""

    def run(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Scores, falling, and item indices of the best k items per domain, each [batch, domains, k]."""


@dataclass(frozen=True)
class OnnxSession:
    """A `GraphSession` on the CPU."""

    asked: Providers
    got: str
    _session: Any

    def run(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """As `GraphSession` says."""
        feed = batch.arrays() | {"k": np.array(batch.k, dtype=np.int64)}
        scores, item_index = self._session.run(OUTPUTS, feed)
        return scores, item_index


def open_session(bundle: Bundle, asked: Providers, threads: int) -> OnnxSession:
    """Load the graph on the CPU.

    Args:
        bundle: whose graph.
        asked: the setting, for whoever asks what was asked for.
        threads: threads within one operation.
    Raises:
        WorkFailed: the graph cannot be loaded.
    """
    session = new_session(bundle.graph, bundle.graph, threads, {CPU: {}})
    return OnnxSession(asked, session.get_providers()[0], session)


def new_session(model: Path | bytes, name: Path, threads: int, providers: Mapping[str, Mapping[str, str]]) -> Any:
    """An InferenceSession. What it runs on is what its `get_providers()` says, not what was asked for.

    Args:
        model: the graph.
        name: of the graph, for messages.
        threads: threads within one operation.
        providers: the options of each, the one to prefer first.
    Raises:
        WorkFailed: ONNX Runtime refuses the graph or the options.
    """
    onnxruntime = import_onnxruntime()
    onnxruntime.set_default_logger_severity(4)  # fatal: what matters is raised or checked by us, in one line
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads that spin take the cores that parsing needs: 671 against 328 microseconds a request.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    wanted: Sequence[tuple[str, dict[str, str]]] = [(provider, dict(given)) for provider, given in providers.items()]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a provider is missing: what was got is looked at by the caller
            return onnxruntime.InferenceSession(
                model if isinstance(model, bytes) else str(model),
                sess_options=options,
                providers=wanted,
                enable_fallback=0,  # a provider that fails later would be replaced by another without a word to us
            )
    except Exception as error:  # ONNX Runtime's errors have no common base below Exception
        raise WorkFailed(f"{name}: ONNX Runtime cannot load it: {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The beginning of a message, without line breaks."""
    return " ".join(str(error).split())[:300]
