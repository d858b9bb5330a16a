"""The graph of a mixture: what is in it, and that ONNX Runtime answers as PyTorch does."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from formats.bundle import MAX_K, graph_inputs, graph_outputs
from formats.history import encode_histories
from formats.runtime import import_onnxruntime
from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, SINGLE
from model.ranker import Ranker
from training.config import TrainingConfig
from training.graph import write_graph
from training.members import NAMES
from training.methods import build_objective
from training.mixture import write_mixture
from training.run import Run, TrainedRun
from training.served_ranker import served_ranker

# Shares of a domain, compared relative to themselves: float32 sums in another order.
TOLERANCE = 1e-4
SIZES = (120, 14, 6)
ITEMS = sum(SIZES)
DOMAIN = np.repeat([0, 1, 2, 3, 0], [1, *SIZES, 1])


def session_of(file):
    return import_onnxruntime().InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def served(tiny_mixed_trained):
    return served_ranker(tiny_mixed_trained)


@pytest.fixture(scope="module")
def session(tiny_mixed_bundle):
    return session_of(tiny_mixed_bundle.graph)


@pytest.fixture(scope="module")
def graph(tiny_mixed_bundle):
    return onnx.load(tiny_mixed_bundle.graph)


def initializers(graph):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def random_histories(lengths, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(1, ITEMS + 1, length).astype(np.int32) for length in lengths]


def feed(served, histories, k, max_history, exclude=None, restricted=None, include=None):
    batch = len(histories)
    return {
        "history": encode_histories(histories, max_history, ITEMS),
        "exclude": np.array(exclude or [[0]] * batch, dtype=np.int32),
        "restricted": np.array(restricted or [[False] * 3] * batch),
        "include": np.array(include or [[0]] * batch, dtype=np.int32),
        "k": np.array(k, dtype=np.int64),
        **({"recent": served.recent} if len(served.recent) else {}),
    }


def agree(session, served, tensors):
    """The same candidates, the same shares in every place, and items that have these shares."""
    scores, index = session.run(["scores", "item_index"], tensors)
    given = {name: torch.from_numpy(values) for name, values in tensors.items()}
    with torch.inference_mode():
        wanted, wanted_index = (out.numpy() for out in served.ranker(*given.values()))
        shares = served.ranker.mixture(given["history"], given.get("recent")).numpy()
    assert scores.dtype == np.float32
    assert index.dtype == np.int32
    assert scores.shape == index.shape == (len(shares), 3, int(tensors["k"]))
    np.testing.assert_allclose(scores, wanted, rtol=TOLERANCE, atol=1e-9)
    np.testing.assert_array_equal(index > 0, wanted_index > 0)
    found = np.take_along_axis(shares[:, None], index.astype(np.int64), axis=2)
    np.testing.assert_allclose(found[index > 0], scores[index > 0], rtol=TOLERANCE, atol=1e-9)
    for row in index.reshape(-1, index.shape[-1]):
        assert len(set(row[row > 0])) == (row > 0).sum()
    for domain in range(3):
        assert set(DOMAIN[index[:, domain]].flatten()) <= {0, domain + 1}
    return scores, index


LENGTHS = [0, 1, 2, 5, 6, 7, 20]  # the network reads 6


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("length", LENGTHS)
def test_one_history_of_any_length(session, served, length, k):
    agree(session, served, feed(served, random_histories([length], seed=length), k, 6))


@pytest.mark.parametrize("k", [1, 100])
def test_a_batch_of_mixed_lengths_answers_as_each_row_alone(session, served, k):
    histories = random_histories(LENGTHS)
    scores, _ = agree(session, served, feed(served, histories, k, 6))
    for row, history in enumerate(histories):
        alone, _ = agree(session, served, feed(served, [history], k, 6))
        np.testing.assert_allclose(alone[0], scores[row], rtol=TOLERANCE, atol=1e-9)


def test_histories_of_one_domain_alone(session, served):
    histories = [np.arange(1, 7), np.arange(121, 127), np.arange(135, 141), np.array([140, 140, 140])]
    agree(session, served, feed(served, [history.astype(np.int32) for history in histories], 10, 6))


def test_excluded_items_are_never_answered_and_change_no_share(session, served):
    histories = random_histories([3, 6, 9])
    exclude = [[5, 130, 0], [0, 0, 0], [1, 140, 121]]
    every, _ = agree(session, served, feed(served, histories, 100, 6))
    scores, index = agree(session, served, feed(served, histories, 100, 6, exclude=exclude))
    for row, gone in enumerate(exclude):
        assert not set(gone) - {0} & set(index[row].flatten().tolist())
    np.testing.assert_array_equal(scores[1], every[1])
    assert set(np.round(scores[0, 1][index[0, 1] > 0], 6)) < set(np.round(every[0, 1][np.isfinite(every[0, 1])], 6))


def test_restricted_domains_answer_included_items_only(session, served):
    histories = random_histories([2, 6, 9])
    restricted = [[True, False, False], [False, False, False], [True, True, True]]
    include = [[7, 9, 130], [1, 2, 3], [8, 122, 0]]
    _, index = agree(
        session,
        served,
        feed(served, histories, 10, 6, exclude=[[9], [0], [122]], restricted=restricted, include=include),
    )
    answered = [[set(row[row > 0].tolist()) for row in domains] for domains in index]
    assert answered[0][0] == {7}
    assert len(answered[0][1]) == 10
    assert answered[2] == [{8}, set(), set()]


def test_other_counts_give_other_answers_without_another_graph(session, served):
    """What the service may renew: the graph reads the counts, it does not hold them."""
    tensors = feed(served, random_histories([3]), 10, 6)
    before, _ = agree(session, served, tensors)
    turned = {**tensors, "recent": np.ascontiguousarray(served.recent[:, ::-1])}
    after, _ = agree(session, served, turned)
    assert np.abs(after[0, 0] - before[0, 0]).max() > 1e-3
    np.testing.assert_array_equal(after[0, 2], before[0, 2])  # Toys counts nothing
    nothing = {**tensors, "recent": np.zeros_like(served.recent)}
    assert (agree(session, served, nothing)[0][0, 1] < before[0, 1]).any()


def test_inputs_and_outputs_are_those_of_the_contract(graph, served):
    kinds = {
        "int32": TensorProto.INT32,
        "int64": TensorProto.INT64,
        "float32": TensorProto.FLOAT,
        "bool": TensorProto.BOOL,
    }
    for found, wanted in (
        (graph.graph.input, graph_inputs(3, 7, served.recent.shape)),
        (graph.graph.output, graph_outputs(3)),
    ):
        assert [one.name for one in found] == [spec.name for spec in wanted]
        for one, spec in zip(found, wanted, strict=True):
            assert one.type.tensor_type.elem_type == kinds[spec.dtype]
            for dim, size in zip(one.type.tensor_type.shape.dim, spec.shape, strict=True):
                assert (dim.dim_value == size) if isinstance(size, int) else dim.dim_param


def test_it_is_valid_and_plain(graph):
    onnx.checker.check_model(graph, full_check=True)
    assert not {node.op_type for node in graph.graph.node} & {"If", "Loop", "Scan", "Dropout"}
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}


def test_each_large_tensor_is_in_the_file_once(graph, served):
    """The table of items, and that of neighbours: nothing is stored transposed or in pieces besides."""
    large = {name: array.shape for name, array in initializers(graph).items() if ITEMS + 2 in array.shape}
    tables = [shape for shape in large.values() if len(shape) > 1]
    neighbours = served.ranker.mixture.neighbours
    assert sorted(tables, key=len) == [(ITEMS + 2, 8), *[tuple(neighbours.item.shape)] * 2]
    pieces = [array.shape for array in initializers(graph).values() if set(SIZES) & set(array.shape)]
    assert pieces == []


def test_only_towers_with_a_weight_are_in_it(graph, tiny_mixed_trained):
    """Games has no weight for SDSR; SC-MIM is for training."""
    names = set(initializers(graph))
    towers = [{name for name in names if f"single_towers.{domain}." in name} for domain in range(3)]
    assert [bool(found) for found in towers] == [True, False, True]
    assert not {name for name in names if "mutual" in name or "gap" in name}
    assert any("acmoe.single_gates" in name for name in names)
    bilinear = tiny_mixed_trained.objective.mutual.bilinear.detach().numpy()
    assert not [
        1 for array in initializers(graph).values() if array.shape == bilinear.shape and (array == bilinear).all()
    ]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory, tiny_timed_dataset):
    """A small network whose answers nobody needs to be good, in a run that serves a mixture."""
    config = TrainingConfig(dim=8, max_history=4, experts=2, layers=1)
    objective = build_objective(config, tiny_timed_dataset).eval()
    path = tmp_path_factory.mktemp("untrained")
    run = Run(path, config, tiny_timed_dataset.path, tiny_timed_dataset.fingerprint)
    return TrainedRun(run, tiny_timed_dataset, objective, {"epoch": 1})


def exported(trained, weights, file):
    """The graph of a mixture, and what it was made of."""
    full = [{name: of_domain.get(name, 0.0) for name in NAMES} for of_domain in weights]
    write_mixture(trained.run.path, trained.dataset.domains, full)
    served = served_ranker(trained)
    write_graph(served.ranker, file, trained.run.config.max_history + 1, served.recent.shape)
    return served


EDGES = {
    "cross everywhere": ([{CROSS: 1.0}] * 3, {"single", "neighbours"}),
    "single everywhere": ([{SINGLE: 1.0}] * 3, {"cross", "neighbours"}),
    "recent everywhere": ([{"recent_14d": 1.0}] * 3, {"single", "cross", "neighbours", "acmoe", "item_embedding"}),
    "neighbours everywhere": ([{NEIGHBOURS: 1.0}] * 3, {"single", "cross", "acmoe", "item_embedding"}),
    "nothing recent": ([{CROSS: 0.5, SINGLE: 0.25, OWN_NEIGHBOURS: 0.25}] * 3, set()),
    "each another": ([{"recent_4d": 1.0}, {CROSS: 1.0}, {NEIGHBOURS: 1.0}], {"single"}),
}


@pytest.mark.parametrize(("weights", "absent"), EDGES.values(), ids=EDGES)
def test_members_without_a_weight_are_not_in_the_graph_and_it_still_answers(untrained, tmp_path, weights, absent):
    served = exported(untrained, weights, tmp_path / "ranker.onnx")
    graph = onnx.load(tmp_path / "ranker.onnx")
    counts_recent = any(name.startswith("recent") for of_domain in weights for name in of_domain)
    assert ("recent" in [one.name for one in graph.graph.input]) == counts_recent
    used = set(initializers(graph))
    for part in absent:
        assert not [name for name in used if part in name], part
    session = session_of(tmp_path / "ranker.onnx")
    for k in (1, 100):
        for lengths in ([3], [0, 1, 2, 3, 4, 5, 9]):
            agree(session, served, feed(served, random_histories(lengths), k, 4))


def test_a_mixture_of_the_cross_task_alone_is_no_larger_than_that_task_and_ranks_alike(untrained, tmp_path):
    served = exported(untrained, [{CROSS: 1.0}] * 3, tmp_path / "mixed.onnx")
    ranker = Ranker(untrained.objective.network, SIZES, MAX_K).eval()
    write_graph(ranker, tmp_path / "cross.onnx", 5, (0, 0))
    sizes = [
        sum(array.nbytes for array in initializers(onnx.load(tmp_path / name)).values() if array.dtype == np.float32)
        for name in ("mixed.onnx", "cross.onnx")
    ]
    assert sizes[0] <= sizes[1]
    tensors = feed(served, random_histories([0, 1, 3, 4, 9]), 5, 4)
    scores, index = session_of(tmp_path / "mixed.onnx").run(None, tensors)
    logits, wanted = session_of(tmp_path / "cross.onnx").run(None, tensors)
    np.testing.assert_array_equal(index, wanted)
    # A softmax of the same scores: differences of logits are ratios of shares.
    np.testing.assert_allclose(np.log(scores[..., :1] / scores), logits[..., :1] - logits, atol=1e-4)
