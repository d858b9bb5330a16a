"""Ranker -> ONNX file: one graph for any batch, any number of exclusions and any k, without control flow."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch.export import Dim

from formats.bundle import graph_inputs, graph_outputs
from model.mixed_ranker import MixedRanker
from model.ranker import Ranker

OPSET = 20


def write_graph(ranker: Ranker | MixedRanker, file: Path, slots: int, recent: tuple[int, int]) -> None:
    """Export a ranker.

    Args:
        ranker: on the CPU, in evaluation mode.
        file: the ONNX file to write.
        slots: length of an encoded history.
        recent: shape of the recent counts that it reads; no rows for CDSR alone.
    Raises:
        RuntimeError: the graph holds control flow or its inputs and outputs are not those of the bundle (our bug).
    """
    domains = len(ranker.top.columns)
    # Sizes of the example are all different and above 1: the exporter treats 0 and 1 as constants.
    example = (
        torch.zeros(3, slots, dtype=torch.int32),
        torch.zeros(3, 5, dtype=torch.int32),
        torch.zeros(3, domains, dtype=torch.bool),
        torch.zeros(3, 7, dtype=torch.int32),
        torch.tensor(10),
        *([torch.zeros(recent)] if recent[0] else []),
    )
    batch = Dim("batch", min=1, max=4096)
    dynamic = {
        "history": {0: batch},
        "exclude": {0: batch, 1: Dim("excluded", min=1, max=1 << 24)},
        "restricted": {0: batch},
        "include": {0: batch, 1: Dim("included", min=1, max=1 << 24)},
        "k": {},
        **({"recent": {}} if recent[0] else {}),
    }
    inputs, outputs = graph_inputs(domains, slots, recent), graph_outputs(domains)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            ranker,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            dynamic_shapes=dynamic,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for node in graph.graph.node:  # source paths and stack traces of whoever exports
        del node.metadata_props[:]
    onnx.save(graph, file)
    _check(graph, [spec.name for spec in inputs], [spec.name for spec in outputs])


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter reports on its own internals, at length; none of it concerns the graph, which is checked."""
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _check(graph: onnx.ModelProto, inputs: list[str], outputs: list[str]) -> None:
    found = {node.op_type for node in graph.graph.node}
    if found & {"If", "Loop", "Scan"}:
        raise RuntimeError(f"control flow in the exported graph: {found & {'If', 'Loop', 'Scan'}}")
    if [one.name for one in graph.graph.input] != inputs or [one.name for one in graph.graph.output] != outputs:
        raise RuntimeError(f"inputs or outputs of the graph differ: {graph.graph.input}, {graph.graph.output}")
