import getpass
import socket
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from formats.bundle import MAX_K, graph_inputs, graph_outputs
from model.ranker import Ranker
from training.graph import OPSET, _check, write_graph

ROOT = Path(__file__).parents[2]
CONTROL_FLOW = {"If", "Loop", "Scan"}


@pytest.fixture(scope="module")
def graph(tiny_bundle):
    return onnx.load(tiny_bundle.graph)


@pytest.fixture(scope="module")
def weights(graph):
    """Every float tensor of more than one element in the file, initialisers and constants."""
    tensors = list(graph.graph.initializer)
    tensors += [a.t for node in graph.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    arrays = [numpy_helper.to_array(tensor) for tensor in tensors]
    return [array for array in arrays if array.dtype == np.float32 and array.size > 1]


def stored(weights, values):
    """How often a parameter is in the file, as it is or transposed."""
    values = values.detach().numpy()
    return sum(
        any(
            array.shape == turned.shape and np.array_equal(array, turned)
            for turned in {0: values, 1: values.T}.values()
        )
        for array in weights
    )


def test_it_is_a_valid_model_of_the_stated_opset(graph):
    onnx.checker.check_model(graph, full_check=True)
    assert {(one.domain, one.version) for one in graph.opset_import if one.domain in {"", "ai.onnx"}} == {("", OPSET)}


def test_it_has_no_control_flow_and_no_functions(graph):
    assert not {node.op_type for node in graph.graph.node} & CONTROL_FLOW
    assert len(graph.functions) == 0


def test_it_uses_standard_operators_only(graph):
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}


def test_nothing_in_it_is_random(graph):
    assert not {node.op_type for node in graph.graph.node} & {"Dropout", "RandomNormal", "RandomUniform", "Bernoulli"}


def test_inputs_and_outputs_are_those_of_the_contract(graph, tiny_bundle):
    kinds = {
        "int32": TensorProto.INT32,
        "int64": TensorProto.INT64,
        "float32": TensorProto.FLOAT,
        "bool": TensorProto.BOOL,
    }
    slots = tiny_bundle.manifest.max_history + 1
    for found, wanted in (
        (graph.graph.input, graph_inputs(3, slots)),
        (graph.graph.output, graph_outputs(3)),
    ):
        assert [one.name for one in found] == [spec.name for spec in wanted]
        for one, spec in zip(found, wanted, strict=True):
            assert one.type.tensor_type.elem_type == kinds[spec.dtype]
            shape = one.type.tensor_type.shape.dim
            assert len(shape) == len(spec.shape)
            for dim, size in zip(shape, spec.shape, strict=True):
                assert (dim.dim_value == size) if isinstance(size, int) else dim.dim_param


def test_the_parts_of_cdsr_are_in_it_once(weights, tiny_trained):
    network = tiny_trained.objective.network
    for name, parameter in network.named_parameters():
        if name.startswith(("single_towers", "acmoe.single_gates")) or not name.endswith(("weight", "bias")):
            continue
        if len(np.unique(parameter.detach().numpy())) > 1:  # constant vectors may be shared
            assert stored(weights, parameter) >= 1, name
    assert stored(weights, network.item_vectors()) == 1


def test_the_item_table_is_there_once_and_nothing_else_is_as_large(weights, tiny_trained):
    items = tiny_trained.dataset.items + 2
    assert sum(items in array.shape and array.ndim == 2 for array in weights) == 1


def test_sdsr_towers_and_gates_and_the_matrix_of_sc_mim_are_not_in_it(graph, weights, tiny_trained):
    objective = tiny_trained.objective
    parts = [objective.mutual.bilinear, *objective.network.acmoe.single_gates.parameters()]
    parts += objective.network.single_towers.parameters()
    for parameter in parts:
        if len(np.unique(parameter.detach().numpy())) > 1:
            assert stored(weights, parameter) == 0
    names = [tensor.name for tensor in graph.graph.initializer]
    assert not [name for name in names if any(part in name for part in ("single", "mutual", "bilinear", "gap"))]


def test_the_weights_of_the_file_are_no_more_than_those_of_cdsr(weights, tiny_trained):
    network = tiny_trained.objective.network
    needed = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if not name.startswith(("single_towers", "acmoe.single_gates"))
    )
    no_bias = tiny_trained.dataset.items + 2
    assert sum(array.size for array in weights) <= needed + no_bias + 64


def test_the_file_says_nothing_of_the_machine_that_made_it(graph):
    without_weights = onnx.ModelProto()
    without_weights.CopyFrom(graph)
    for weights in without_weights.graph.initializer:  # in random bytes any short word turns up by chance
        weights.ClearField("raw_data")
    content = without_weights.SerializeToString()
    for trace in (str(ROOT), str(Path.home()), "site-packages", ".py", "Traceback", "tmp/"):
        assert trace.encode() not in content, trace
    for name in (getpass.getuser(), socket.gethostname()):
        assert len(name) < 6 or name.encode() not in content  # short names are parts of other words
    assert not [node.name for node in graph.graph.node if node.metadata_props or node.doc_string]
    assert not graph.doc_string
    assert not graph.graph.doc_string


def proto(op_type, input_name="x", output_name="y"):
    branch = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["z"])],
        "b",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1])],
    )
    attributes = {"then_branch": branch, "else_branch": branch} if op_type == "If" else {}
    node = helper.make_node(op_type, [input_name], [output_name], **attributes)
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in (input_name, output_name)]
    return helper.make_model(helper.make_graph([node], "g", tensors[:1], tensors[1:]))


def test_the_check_passes_a_plain_graph_and_refuses_control_flow_and_other_names():
    _check(proto("Identity"), ["x"], ["y"])
    for op_type in sorted(CONTROL_FLOW):
        with pytest.raises(RuntimeError, match="control flow"):
            _check(proto(op_type), ["x"], ["y"])
    for names in ((["a"], ["y"]), (["x"], ["b"]), (["x", "k"], ["y"])):
        with pytest.raises(RuntimeError, match="inputs or outputs"):
            _check(proto("Identity"), *names)


def test_what_the_exporter_made_is_checked_before_it_counts_as_written(tiny_trained, tmp_path, monkeypatch):
    ranker = Ranker(tiny_trained.objective.network, tiny_trained.dataset.items_per_domain, MAX_K).eval()
    monkeypatch.setattr("training.graph.torch.onnx.export", lambda *_, **__: SimpleNamespace(model_proto=proto("If")))
    with pytest.raises(RuntimeError, match="control flow"):
        write_graph(ranker, tmp_path / "ranker.onnx", 7, (0, 0))


def test_the_largest_k_of_the_graph_is_that_of_the_contract():
    assert MAX_K == 100
