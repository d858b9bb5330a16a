"""`k` as a constant: the same model to `onnx`, without that input, and the same answers to the largest k."""

import numpy as np
import onnx
import pytest

from formats.bundle import MAX_K, read_bundle
from formats.errors import WorkFailed
from service.ranking.fixed_k import with_fixed_k
from service.ranking.session import CPU, new_session


@pytest.fixture(scope="module")
def bundle(models):
    return read_bundle(models / "small-1")


def test_only_the_input_k_becomes_a_constant(bundle):
    before = onnx.load(bundle.graph)
    after = onnx.load_from_string(with_fixed_k(bundle.graph.read_bytes(), 7))
    onnx.checker.check_model(after)
    constant = after.graph.initializer.pop()
    assert constant.name == "k"
    assert onnx.numpy_helper.to_array(constant) == np.array(7, dtype=np.int64)
    (given,) = [one for one in before.graph.input if one.name == "k"]
    before.graph.input.remove(given)
    assert after == before


def test_onnx_runtime_knows_the_size_of_the_answer_before_it_runs(bundle):
    model = with_fixed_k(bundle.graph.read_bytes(), MAX_K)
    session = new_session(model, bundle.graph, 1, {CPU: {}})
    assert "k" not in [one.name for one in session.get_inputs()]
    assert [one.shape[2] for one in session.get_outputs()] == [MAX_K, MAX_K]


@pytest.mark.parametrize("edit", [lambda model: model[:-1], lambda model: b"\x07" + model, lambda model: b"nonsense"])
def test_what_is_no_model_is_told_in_one_line(bundle, edit):
    with pytest.raises(WorkFailed, match="this is no ONNX model") as refused:
        with_fixed_k(edit(bundle.graph.read_bytes()), 1)
    assert "\n" not in str(refused.value)


def test_a_model_without_the_input_is_refused(bundle):
    once = with_fixed_k(bundle.graph.read_bytes(), 1)
    with pytest.raises(WorkFailed, match="no input k"):
        with_fixed_k(once, 1)
