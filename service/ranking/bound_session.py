"""BoundSession: the graph on buffers that were made once, a set for every shape of `buckets`, on a GPU with a CUDA graph each.

A CUDA graph replays kernels on the very addresses it was recorded with. So the inputs of a shape lie in buffers of the device
that are filled anew for every batch, and the outputs in others; `k` is a constant (`fixed_k`) and cut afterwards. A batch that no
shape holds runs as it is, on memory of its own: slower, right, and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from formats.bundle import MAX_K, Manifest
from formats.runtime import import_onnxruntime
from service.ranking.buckets import Buckets, Shape, pad
from service.ranking.session import OUTPUTS, Batch
from service.settings import Providers

# ONNX Runtime runs twice before it records; the third replays. 0 is its own number, -1 is a run without a graph.
WARMING_RUNS = 3
_NO_GRAPH = -1
_DTYPES = {"int32": np.int32, "int64": np.int64, "float32": np.float32, "bool": np.bool_}

RunKind = Literal["graph", "bound", "unbound"]
CountRun = Callable[[RunKind], None]


@dataclass(frozen=True)
class _Bound:
    """One shape's buffers. inputs: all that differ from batch to batch, by name."""

    binding: Any
    inputs: dict[str, Any]
    outputs: Sequence[Any]
    options: Any


class BoundSession:
    """A `service.ranking.session.GraphSession`. The thread that makes it must also run it: a CUDA graph is its thread's."""

    def __init__(
        self,
        asked: Providers,
        session: Any,
        unbound: Any,
        manifest: Manifest,
        buckets: Buckets,
        *,
        device: Literal["cuda", "cpu"],
        graphs: bool,
        count: CountRun,
    ) -> None:
        """Make the buffers.

        Args:
            asked: the setting.
            session: an InferenceSession of the graph with a fixed k.
            unbound: runs what no shape holds; may be the same one.
            manifest: the graph's.
            buckets: the shapes.
            device: where the buffers are.
            graphs: whether `session` records CUDA graphs.
            count: is told how each batch ran.
        """
        self.asked = asked
        self.got: str = session.get_providers()[0]
        self.graphs = graphs
        self._session, self._unbound, self._buckets = session, unbound, buckets
        self._device, self._count = device, count
        self._free = {spec.name: spec for spec in manifest.inputs if spec.name not in {"k", "recent"}}
        self._outputs = manifest.outputs
        recent = next((spec for spec in manifest.inputs if spec.name == "recent"), None)
        # One buffer for all shapes, and filled only when the counts are others: it is as long as the catalogue.
        self._recent = None if recent is None else self._buffer(recent.shape, recent.dtype)
        self._in_recent: NDArray[np.float32] | None = None
        self._bound = {
            shape: self._bind(shape, number if graphs else _NO_GRAPH)
            for number, shape in enumerate(buckets.shapes(), start=1)
        }
        self._as_it_is = _run_options(_NO_GRAPH)

    def warm(self, sample: Batch) -> None:
        """Run every shape until its graph is recorded and was replayed once. sample: any batch that each shape holds."""
        for shape in self._bound:
            padded = pad(sample, shape)
            for _ in range(WARMING_RUNS):
                self._run(self._bound[shape], padded)

    def run(self, batch: Batch) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Scores, falling, and item indices of the best k items per domain, each [batch, domains, k]; k up to MAX_K."""
        shape = self._buckets.holding(batch)
        if shape is None:
            self._count("unbound")
            scores, item_index = self._unbound.run(OUTPUTS, batch.arrays(), self._as_it_is)
        else:
            self._count("graph" if self.graphs else "bound")
            scores, item_index = self._run(self._bound[shape], pad(batch, shape))
        rows = len(batch.history)
        # Copied: on the CPU, what a buffer shows as an array is the buffer itself.
        return scores[:rows, :, : batch.k].copy(), item_index[:rows, :, : batch.k].copy()

    def _run(self, bound: _Bound, padded: Batch) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        arrays = padded.arrays()
        for name, buffer in bound.inputs.items():
            buffer.update_inplace(arrays[name])
        if self._recent is not None and self._in_recent is not padded.recent:
            self._recent.update_inplace(padded.recent)
            # Kept, so that no other array takes its place in memory and is mistaken for it. Counts are never changed in place.
            self._in_recent = padded.recent
        bound.binding.synchronize_inputs()
        self._session.run_with_iobinding(bound.binding, bound.options)
        bound.binding.synchronize_outputs()
        scores, item_index = (buffer.numpy() for buffer in bound.outputs)
        return scores, item_index

    def _bind(self, shape: Shape, graph_number: int) -> _Bound:
        sizes = {"batch": shape.rows, "excluded": shape.excluded, "included": shape.included, "k": MAX_K}

        def made(spec: Any) -> Any:
            return self._buffer([sizes.get(size, size) for size in spec.shape], spec.dtype)

        inputs = {name: made(spec) for name, spec in self._free.items()}
        outputs = {spec.name: made(spec) for spec in self._outputs}
        binding = self._session.io_binding()
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer)
        if self._recent is not None:
            binding.bind_ortvalue_input("recent", self._recent)
        for name in OUTPUTS:
            binding.bind_ortvalue_output(name, outputs[name])
        return _Bound(binding, inputs, [outputs[name] for name in OUTPUTS], _run_options(graph_number))

    def _buffer(self, shape: Sequence[int | str], dtype: str) -> Any:
        ort_value = import_onnxruntime().OrtValue
        return ort_value.ortvalue_from_shape_and_type(list(shape), _DTYPES[dtype], self._device, 0)


def _run_options(graph_number: int) -> Any:
    options = import_onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph_number))
    return options
