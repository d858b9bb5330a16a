import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
import torch
from onnx import numpy_helper

import training.export
from formats.arrays import write_array
from formats.bundle import CARD, GRAPH, ITEMS, MANIFEST, MAX_K, WARMUP, read_bundle
from formats.errors import WorkFailed
from formats.history import encode_histories
from formats.neighbours import NEIGHBOURS
from formats.runtime import import_onnxruntime
from formats.vectors import VECTORS
from model.ranker import Ranker
from tests.reference.datasets import write_dataset
from tests.reference.network import SlowNetwork
from training.config import TrainingConfig
from training.evaluate import Protocol, evaluate
from training.export import answers_agree, export
from training.manifest import PARTS
from training.methods import build_objective, to_json
from training.run import Run, TrainedRun
from training.served_ranker import served_ranker
from training.similar_items import strongest_neighbours

# ONNX Runtime and PyTorch sum float32 in another order.
TOLERANCE = 1e-5


def random_history(length, seed):
    return np.random.default_rng(seed).integers(1, 141, length).astype(np.int32)


def feed(histories, max_history, k, exclude=None, restricted=None, include=None):
    batch = len(histories)
    return {
        "history": encode_histories(histories, max_history, 140),
        "exclude": np.array(exclude or [[0]] * batch, dtype=np.int32),
        "restricted": np.array(restricted or [[False] * 3] * batch),
        "include": np.array(include or [[0]] * batch, dtype=np.int32),
        "k": np.array(k, dtype=np.int64),
    }


@pytest.fixture(scope="module")
def onnx_session(tiny_bundle):
    return import_onnxruntime().InferenceSession(tiny_bundle.graph, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def agree(onnx_session, tiny_trained):
    """Compares both on one feed: the same candidates, the same scores in every place, and items that have these scores."""
    network = tiny_trained.objective.network
    ranker = Ranker(network, tiny_trained.dataset.items_per_domain, MAX_K).eval()

    def compare(tensors):
        scores, index = onnx_session.run(["scores", "item_index"], tensors)
        with torch.inference_mode():
            wanted, wanted_index = (out.numpy() for out in ranker(*map(torch.from_numpy, tensors.values())))
            full = (network.cross_next(torch.from_numpy(tensors["history"])) @ network.item_vectors().T).numpy()
        assert scores.dtype == np.float32
        assert index.dtype == np.int32
        assert scores.shape == index.shape == (len(full), 3, int(tensors["k"]))
        np.testing.assert_allclose(scores, wanted, rtol=TOLERANCE, atol=TOLERANCE)
        np.testing.assert_array_equal(index > 0, wanted_index > 0)
        found = np.take_along_axis(full[:, None], index.astype(np.int64), axis=2)
        np.testing.assert_allclose(found[index > 0], scores[index > 0], rtol=TOLERANCE, atol=TOLERANCE)
        for row in index.reshape(-1, index.shape[-1]):
            assert len(set(row[row > 0])) == (row > 0).sum()
        return scores, index

    return compare


@pytest.fixture(scope="module")
def max_history(tiny_bundle):
    return tiny_bundle.manifest.max_history


def lengths(max_history):
    return [1, 2, max_history, max_history + 1, max_history + 9]


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize("which", range(5))
def test_onnx_scores_are_pytorchs_for_every_length_and_k(agree, max_history, which, k):
    history = random_history(lengths(max_history)[which], seed=which)
    agree(feed([history], max_history, k))


@pytest.mark.parametrize("k", [1, 10, 100])
def test_a_batch_of_mixed_lengths_answers_as_each_row_alone(agree, max_history, k):
    histories = [random_history(length, seed) for seed, length in enumerate([*lengths(max_history), 0, 3])]
    scores, _ = agree(feed(histories, max_history, k))
    for row, history in enumerate(histories):
        alone, _ = agree(feed([history], max_history, k))
        np.testing.assert_allclose(alone[0], scores[row], rtol=TOLERANCE, atol=TOLERANCE)


def test_onnx_scores_are_those_of_the_slow_network(onnx_session, tiny_trained, max_history):
    slow = SlowNetwork(tiny_trained.objective.network, tiny_trained.dataset.items_per_domain, 2, single_experts=1)
    histories = [random_history(length, seed) for seed, length in enumerate([1, 2, max_history, max_history + 3])]
    scores, index = onnx_session.run(None, feed(histories, max_history, 5))
    with torch.no_grad():
        for row, history in enumerate(histories):
            all_scores = slow.p["item_embedding.weight"] @ slow.cross(history[-max_history:].tolist())[-1]
            for domain, items in enumerate((range(1, 121), range(121, 135), range(135, 141))):
                best = all_scores[items.start : items.stop].sort(descending=True).values[:5]
                np.testing.assert_allclose(scores[row, domain], best.numpy(), rtol=1e-4, atol=1e-4)
                np.testing.assert_allclose(all_scores[index[row, domain]].numpy(), best.numpy(), rtol=1e-4, atol=1e-4)


def test_excluded_items_are_never_answered(agree, max_history):
    histories = [random_history(n, n) for n in (2, 6, 9)]
    exclude = [[5, 130, 0, 0], [0, 0, 0, 0], [1, 2, 140, 121]]
    _, index = agree(feed(histories, max_history, 100, exclude=exclude))
    for row, gone in enumerate(exclude):
        assert not set(gone) - {0} & set(index[row].flatten().tolist())
    assert (index[1] > 0).sum() == 100 + 14 + 6
    assert (index[0] > 0).sum() == 100 + 13 + 6


def test_restricted_domains_answer_included_items_only_and_exclusion_wins(agree, max_history):
    histories = [random_history(n, n) for n in (2, 6, 9)]
    restricted = [[True, False, False], [False, False, False], [True, True, True]]
    include = [[7, 9, 130], [1, 2, 3], [8, 122, 0]]
    _, index = agree(
        feed(histories, max_history, 10, exclude=[[9], [0], [122]], restricted=restricted, include=include)
    )
    answered = [[set(row[row > 0].tolist()) for row in domains] for domains in index]
    assert answered[0][0] == {7}
    assert len(answered[0][1]) == 10
    assert len(answered[1][0]) == 10
    assert answered[2] == [{8}, set(), set()]


def test_domains_smaller_than_k_fill_up_with_minus_infinity_and_0(agree, max_history):
    scores, index = agree(feed([random_history(3, 0)], max_history, 100))
    assert (index[0, 1, 14:] == 0).all()
    assert np.isneginf(scores[0, 1, 14:]).all()
    assert sorted(index[0, 2, :6].tolist()) == list(range(135, 141))
    assert sorted(index[0, 1, :14].tolist()) == list(range(121, 135))


def test_equal_scores_go_to_the_lower_index_which_is_the_more_popular_item(tiny_trained, tmp_path):
    """Two items with one vector: the graph answers the first of them first."""
    network = tiny_trained.objective.network
    kept = network.item_embedding.weight.detach().clone()
    with torch.no_grad():
        network.item_embedding.weight[40:61] = kept[40]
    try:
        bundle = export(tiny_trained, evaluate(tiny_trained, Protocol()), tmp_path)
    finally:
        with torch.no_grad():
            network.item_embedding.weight.copy_(kept)
    session = import_onnxruntime().InferenceSession(bundle.graph, providers=["CPUExecutionProvider"])
    _, index = session.run(None, feed([random_history(4, 1)], bundle.manifest.max_history, 100))
    same = [item for item in index[0, 0].tolist() if 40 <= item <= 60]
    assert same == sorted(same)
    assert len(same) > 1


def test_the_manifest_says_what_was_exported(tiny_bundle, tiny_trained, tiny_config):
    manifest, dataset = tiny_bundle.manifest, tiny_trained.dataset
    assert manifest.domains == dataset.domains
    assert tuple(manifest.items_per_domain.values()) == dataset.items_per_domain
    assert (manifest.max_history, manifest.dim) == (tiny_config.max_history, tiny_config.dim)
    assert manifest.training_config == to_json(tiny_config)
    assert manifest.dataset_fingerprint == dataset.fingerprint
    assert manifest.evaluation == json.loads(json.dumps(evaluate(tiny_trained, Protocol())))
    assert manifest.created_at.tzinfo is not None
    assert tiny_bundle.path.name == manifest.model_version


def test_the_catalogue_of_the_bundle_is_that_of_the_dataset_without_empty_columns(tiny_bundle, tiny_trained):
    wanted = tiny_trained.dataset.catalogue()
    assert tiny_bundle.items().equals(wanted)
    with_nothing = wanted.with_columns(title=pl.lit(None, pl.String), category=pl.lit("x"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tiny_trained.dataset), "catalogue", lambda _: with_nothing)
        assert training.export._items(tiny_trained.dataset, served_ranker(tiny_trained)).columns == [
            name for name in with_nothing.columns if name != "title"
        ]


def test_warm_up_requests_carry_the_answers_of_the_graph(tiny_bundle, onnx_session):
    items = tiny_bundle.items()
    number = {(domain, item): index for index, domain, item in items["item_index", "domain", "item_id"].iter_rows()}
    requests = tiny_bundle.warmup()
    assert len(requests) == 32
    for request in requests:
        history = np.array([number[event] for event in request.history], dtype=np.int32)
        tensors = feed([history], tiny_bundle.manifest.max_history, request.k, exclude=[history.tolist()])
        scores, index = onnx_session.run(None, tensors)
        assert list(request.answer) == list(tiny_bundle.manifest.domains)
        for place, (domain, answer) in enumerate(request.answer.items()):
            known = index[0, place] > 0
            assert len(answer) == known.sum()
            np.testing.assert_allclose([score for _, score in answer], scores[0, place][known], rtol=1e-4, atol=1e-4)
            assert not {number[domain, item] for item, _ in answer} & set(history.tolist())


def test_no_file_of_a_bundle_names_a_path_of_the_exporting_machine(tiny_bundle, tiny_trained):
    for name in (GRAPH, ITEMS, WARMUP, CARD, VECTORS, NEIGHBOURS, MANIFEST):
        content = (tiny_bundle.path / name).read_bytes()
        for path in (tiny_trained.dataset.path, tiny_trained.run.path, Path.home(), Path(__file__).parents[2]):
            assert str(path).encode() not in content


def cells(card, first):
    """The cells of the one row of the card's table that begins with this word."""
    (row,) = [line for line in card.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


@pytest.mark.parametrize(
    ("which", "scorers"),
    [
        ("tiny_bundle", {"CDSR": "cross", "SDSR": "single", "popularity": "popularity"}),
        ("tiny_mixed_bundle", {"mixture": "mixture", "CDSR": "cross", "SDSR": "single", "popularity": "popularity"}),
    ],
)
def test_the_card_shows_every_domain_with_its_test_result_and_first_what_is_served(request, which, scorers):
    bundle = request.getfixturevalue(which)
    card = (bundle.path / CARD).read_text()
    assert cells(card, "domain") == ["domain", "items", "events", *scorers, "gap λ", "weight"]
    assert next(iter(scorers.values())) == bundle.manifest.evaluation["served"]
    assert ("recent popularity and item kNN" in card) == ("mixture" in scorers)
    for name, table in bundle.manifest.evaluation["domains"].items():
        measured = [f"{table[scorer]['ndcg@10']:.4f}" for scorer in scorers.values()]
        assert cells(card, name)[3:] == [*measured, f"{table['lambda']:+.4f}", f"{table['weight']:.3f}"]


@pytest.fixture
def compared(tiny_trained, monkeypatch):
    """The histories that an export compares, without exporting."""
    seen = []

    def record(_ranker, _graph, histories, *_):
        seen.extend(histories)
        raise WorkFailed("enough")

    monkeypatch.setattr(training.export, "write_graph", lambda *_: None)
    monkeypatch.setattr(training.export, "_compare", record)
    return seen


def test_graph_and_checkpoint_are_compared_on_real_histories_of_all_critical_lengths(
    compared, tiny_trained, tmp_path, max_history
):
    with pytest.raises(WorkFailed, match="enough"):
        export(tiny_trained, {}, tmp_path)
    found = {len(history) for history in compared}
    assert {1, 2, max_history, max_history + 1} <= found
    assert max(found) > max_history + 1
    assert all((history > 0).all() for history in compared)
    assert len(compared) > 20


def damaged(monkeypatch, whole, damage):
    """Exports get a damaged copy of the graph."""

    def write(_ranker, file, *_):
        graph = onnx.load(whole)
        damage(graph.graph, {tensor.name: tensor for tensor in graph.graph.initializer})
        onnx.save(graph, file)

    monkeypatch.setattr(training.export, "write_graph", write)


def change(tensor, edit):
    array = numpy_helper.to_array(tensor).copy()
    edit(array)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def find(tensors, shape, nth=0):
    found = [tensor for tensor in tensors.values() if tuple(tensor.dims) == shape]
    assert found, f"no tensor of shape {shape}: {[tuple(tensor.dims) for tensor in tensors.values()]}"
    return found[nth]


def nothing(_graph, _tensors):
    pass


def one_item_moves(_graph, tensors):
    def move(table):
        table[1, :4] += 1

    change(find(tensors, (142, 8)), move)


def the_last_place_is_forgotten(_graph, tensors):
    """Only histories that fill the window see it."""

    def forget(table):
        table[6, :4] += 3

    change(find(tensors, (7, 8)), forget)


def another_start(_graph, tensors):
    def move(table):
        table[141] = -3 * table[141]

    change(find(tensors, (142, 8)), move)


def answers_are_one_off(graph, _tensors):
    """Right scores, wrong items."""
    output = next(node for node in graph.node if "item_index" in node.output)
    output.output[:] = ["before"]
    one = numpy_helper.from_array(np.array(1, dtype=np.int32), "one_off")
    graph.initializer.append(one)
    graph.node.append(onnx.helper.make_node("Sub", ["before", "one_off"], ["item_index"]))


def scores_turn_around(graph, _tensors):
    output = next(node for node in graph.node if "scores" in node.output)
    output.output[:] = ["before"]
    graph.node.append(onnx.helper.make_node("Neg", ["before"], ["scores"]))


@pytest.mark.parametrize(
    "damage", [one_item_moves, the_last_place_is_forgotten, another_start, answers_are_one_off, scores_turn_around]
)
def test_a_graph_that_differs_from_the_checkpoint_is_refused_and_nothing_is_left(
    tiny_trained, tiny_bundle, tmp_path, monkeypatch, damage
):
    damaged(monkeypatch, tiny_bundle.graph, damage)
    with pytest.raises(WorkFailed, match="the ONNX graph and the checkpoint differ"):
        export(tiny_trained, evaluate(tiny_trained, Protocol()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def neighbours_speak_louder(_graph, tensors):
    """By a hundredth, for Toys alone."""

    def strengthen(table):
        table[:, 1] *= 1.01
        table[:, 1, 0] *= 1.01

    change(tensors["mixture.neighbours.weight"], strengthen)


def neighbours_are_one_off(_graph, tensors):
    def move(table):
        table[table > 1] -= 1

    change(tensors["mixture.neighbours.item"], move)


def the_gates_of_sdsr_differ(_graph, tensors):
    (gates,) = [tensor for name, tensor in tensors.items() if "single_gates" in name and len(tensor.dims) == 1]

    def open_one(bias):
        bias[0] += 0.5

    change(gates, open_one)


def half_lives_change_places(graph, _tensors):
    graph.initializer.append(numpy_helper.from_array(np.array([1, 0, 2]), "turned"))
    for node in graph.node:
        node.input[:] = ["turned_recent" if name == "recent" else name for name in node.input]
    graph.node.insert(0, onnx.helper.make_node("Gather", ["recent", "turned"], ["turned_recent"], axis=0))


@pytest.mark.parametrize(
    "damage",
    [
        one_item_moves,
        another_start,
        answers_are_one_off,
        neighbours_speak_louder,
        neighbours_are_one_off,
        the_gates_of_sdsr_differ,
        half_lives_change_places,
    ],
)
def test_a_mixed_graph_that_differs_is_refused_too(
    tiny_mixed_trained, tiny_mixed_bundle, tmp_path, monkeypatch, damage
):
    """Shares are far below 1: what differs by little must still be seen."""
    damaged(monkeypatch, tiny_mixed_bundle.graph, damage)
    with pytest.raises(WorkFailed, match="the ONNX graph and the checkpoint differ"):
        export(tiny_mixed_trained, evaluate(tiny_mixed_trained, Protocol()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_mixed_graph_without_damage_is_accepted(tiny_mixed_trained, tiny_mixed_bundle, tmp_path, monkeypatch):
    damaged(monkeypatch, tiny_mixed_bundle.graph, nothing)
    assert export(tiny_mixed_trained, evaluate(tiny_mixed_trained, Protocol()), tmp_path).path.parent == tmp_path


def test_the_manifest_says_what_is_mixed(tiny_mixed_bundle, tiny_mixed_trained, tiny_weights, tiny_bundle):
    manifest = tiny_mixed_bundle.manifest
    given = [{name: weight for name, weight in of_domain.items() if weight} for of_domain in tiny_weights]
    assert manifest.mixture == dict(zip(manifest.domains, given, strict=True))
    assert manifest.recent_half_lives_days == (4.0, 14.0, 60.0)
    assert manifest.evaluation["served"] == "mixture"
    assert read_bundle(tiny_mixed_bundle.path) == tiny_mixed_bundle
    assert tiny_bundle.manifest.mixture is None
    assert tiny_bundle.manifest.recent_half_lives_days == ()
    assert [spec.name for spec in tiny_bundle.manifest.inputs] == [
        "history",
        "exclude",
        "restricted",
        "include",
        "k",
    ]
    assert len(tiny_bundle.recent()) == 0


def test_the_catalogue_of_a_mixed_bundle_counts_to_the_day_after_the_newest_event(
    tiny_mixed_bundle, tiny_mixed_trained
):
    """By a loop over all events; the newest one is a day old."""
    dataset, day = tiny_mixed_trained.dataset, 86_400 * 10**6
    events = [
        (int(item), int(time) // day)
        for part in PARTS
        for item, time in zip(dataset.part(part).item_index, dataset.part(part).timestamp, strict=True)
        if item
    ]
    tomorrow = max(when for _, when in events) + 1
    items, recent = tiny_mixed_bundle.items(), tiny_mixed_bundle.recent()
    assert recent.shape == (3, dataset.items + 2)
    assert not recent[:, [0, -1]].any()
    for row, half_life in enumerate((4, 14, 60)):
        wanted = np.zeros(dataset.items)
        for item, when in events:
            wanted[item - 1] += 0.5 ** ((tomorrow - when) / half_life)
        np.testing.assert_allclose(items[f"recent_{half_life}d"], wanted, rtol=1e-5)
        np.testing.assert_array_equal(recent[row, 1:-1], items[f"recent_{half_life}d"])
    assert items.drop("recent_4d", "recent_14d", "recent_60d").equals(dataset.catalogue())


def test_warm_up_requests_of_a_mixture_carry_shares(tiny_mixed_bundle):
    for request in tiny_mixed_bundle.warmup():
        for answer in request.answer.values():
            scores = [score for _, score in answer]
            assert scores == sorted(scores, reverse=True)
            assert all(0 <= score <= 1 for score in scores)
            assert sum(scores) <= 1 + 1e-5


def test_a_graph_without_damage_is_accepted(tiny_trained, tiny_bundle, tmp_path, monkeypatch):
    """So it is the damage that is refused above, and the network and its mode stay as they were."""
    before = {name: values.clone() for name, values in tiny_trained.objective.state_dict().items()}
    damaged(monkeypatch, tiny_bundle.graph, nothing)
    bundle = export(tiny_trained, evaluate(tiny_trained, Protocol()), tmp_path)
    assert bundle.path.parent == tmp_path
    assert not tiny_trained.objective.training
    assert all(torch.equal(values, before[name]) for name, values in tiny_trained.objective.state_dict().items())


def test_the_vectors_of_a_bundle_are_the_directions_of_the_network(tiny_bundle, tiny_trained):
    table, vectors = tiny_trained.objective.network.item_vectors().detach().double(), tiny_bundle.vectors()
    assert vectors.shape == (140, 8)
    for row, vector in enumerate(vectors):
        own = table[row + 1]
        np.testing.assert_allclose(vector, (own / own.dot(own).sqrt()).numpy(), atol=1e-6)


def test_the_neighbours_of_a_bundle_are_those_of_the_training_events(tiny_bundle, tiny_trained):
    np.testing.assert_array_equal(tiny_bundle.neighbours(), strongest_neighbours(tiny_trained.dataset))
    assert tiny_bundle.neighbours().any(axis=(0, 2)).all()


@pytest.mark.usefixtures("graph_already_written")
@pytest.mark.parametrize(("name", "row"), [(VECTORS, 7), (NEIGHBOURS, 0)])
def test_vectors_and_neighbours_that_are_written_wrong_are_refused_and_nothing_is_left(
    tiny_trained, tmp_path, monkeypatch, name, row
):
    """Two rows change places, or two neighbours: both files would be read without complaint."""

    def write(file, array):
        wrong = array.copy()
        if file.name == name:
            places = (row, row + 1) if array.ndim == 2 else ((row, 0, 0), (row, 0, 1))
            wrong[places[0]], wrong[places[1]] = array[places[1]], array[places[0]]
            assert not np.array_equal(wrong, array)
        write_array(file, wrong)

    monkeypatch.setattr(training.export, "write_array", write)
    with pytest.raises(WorkFailed, match=f"{name} and what the checkpoint gives differ: no bundle was written"):
        export(tiny_trained, evaluate(tiny_trained, Protocol()), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def graph_already_written(tiny_bundle, monkeypatch):
    """Exports link the graph of the tiny bundle instead of making it again."""
    monkeypatch.setattr(training.export, "write_graph", lambda _ranker, file, *_: file.symlink_to(tiny_bundle.graph))


def no_space(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def nothing_is_left_of(trained, models):
    with pytest.raises(WorkFailed, match=r"cannot write .*No space left on device"):
        export(trained, evaluate(trained, Protocol()), models)
    assert list(models.iterdir()) == []


def test_a_disk_that_fills_up_under_the_graph_leaves_nothing(tiny_trained, tmp_path, monkeypatch):
    monkeypatch.setattr("training.graph.onnx.save", no_space)
    nothing_is_left_of(tiny_trained, tmp_path)


@pytest.mark.usefixtures("graph_already_written")
@pytest.mark.parametrize("full", [ITEMS, WARMUP, CARD, VECTORS, NEIGHBOURS])
def test_a_disk_that_fills_up_under_another_file_leaves_nothing(tiny_trained, tmp_path, monkeypatch, full):
    """A device that is always full stands in for the file: the real error of whoever writes it."""
    real = training.export._compare

    def compare(ranker, graph, *more):
        real(ranker, graph, *more)
        (graph.parent / full).symlink_to("/dev/full")

    monkeypatch.setattr(training.export, "_compare", compare)
    nothing_is_left_of(tiny_trained, tmp_path)


@pytest.mark.usefixtures("graph_already_written")
def test_a_disk_that_fills_up_under_the_manifest_leaves_nothing(tiny_trained, tmp_path, monkeypatch):
    real = Path.write_bytes

    def write_bytes(self, content):
        return no_space() if self.name == MANIFEST else real(self, content)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    nothing_is_left_of(tiny_trained, tmp_path)


def test_without_a_real_history_there_is_nothing_to_compare_and_no_bundle(tmp_path):
    dataset = write_dataset(tmp_path / "d", {"A": 4, "B": 4}, [[1, 2, 5], [3, 6]])
    config = TrainingConfig(dim=8, max_history=4, experts=2, layers=1, mixture=False)
    objective = build_objective(config, dataset).eval()
    trained = TrainedRun(Run(tmp_path, config, dataset.path, dataset.fingerprint), dataset, objective, {"epoch": 1})
    with pytest.raises(WorkFailed, match="no test event has a known item before it"):
        export(trained, {}, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_network_of_one_domain_and_other_sizes_is_exported_too(tmp_path):
    dataset = write_dataset(tmp_path / "d", {"A": 9}, [[1, 2, 5], [3, 6], [4, 7, 8, 9]], test=[[3], [1], [2]])
    config = TrainingConfig(dim=12, heads=3, max_history=2, experts=4, single_experts=2, layers=1, mixture=False)
    objective = build_objective(config, dataset).eval()
    trained = TrainedRun(Run(tmp_path, config, dataset.path, dataset.fingerprint), dataset, objective, {"epoch": 1})
    bundle = export(trained, evaluate(trained, Protocol()), tmp_path / "models")
    assert read_bundle(bundle.path).manifest.domains == ("A",)


def answer(scores, index):
    return np.array([[scores]], dtype=np.float32), np.array([[index]], dtype=np.int32)


BASE = answer([3.0, 2.0, 1.0, -np.inf], [5, 6, 7, 0])


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        (BASE, True),
        (answer([3.00001, 2, 1, -np.inf], [5, 6, 7, 0]), True),
        (answer([3.01, 2, 1, -np.inf], [5, 6, 7, 0]), False),
        (answer([3, 2, 1, 0.5], [5, 6, 7, 8]), False),  # one more candidate
        (answer([3, 2, -np.inf, -np.inf], [5, 6, 0, 0]), False),  # one less
        (answer([3, 2, 1, -np.inf], [6, 5, 7, 0]), False),  # changed places without a tie
        (answer([np.nan, 2, 1, -np.inf], [5, 6, 7, 0]), False),
    ],
)
def test_answers_agree_within_rounding_and_nothing_else(other, agrees):
    assert answers_agree(BASE, other, 1e-4) == answers_agree(other, BASE, 1e-4) == agrees


def test_near_ties_may_change_places():
    one = answer([2.0, 1.00001, 1.0, 0.0], [5, 6, 7, 8])
    assert answers_agree(one, answer([2.0, 1.00001, 1.0, 0.0], [5, 7, 6, 8]), 1e-4)
    assert not answers_agree(one, answer([2.0, 1.00001, 1.0, 0.0], [6, 5, 7, 8]), 1e-4)


SHARES = answer([0.02, 0.01, 1e-5, -np.inf], [5, 6, 7, 0])


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        (SHARES, True),
        (answer([0.0200001, 0.01, 1e-5, -np.inf], [5, 6, 7, 0]), True),
        (answer([0.02001, 0.01, 1e-5, -np.inf], [5, 6, 7, 0]), False),  # a small difference of 1, but none of this
        (answer([0.02, 0.01, 1.01e-5, -np.inf], [5, 6, 7, 0]), False),
        (answer([0.02, 0.01, 1e-5, -np.inf], [6, 5, 7, 0]), False),  # changed places without a tie
        (answer([0.02, 0.01, 0, -np.inf], [5, 6, 7, 0]), False),
    ],
)
def test_shares_agree_relative_to_themselves(other, agrees):
    assert answers_agree(SHARES, other, 1e-4, shares=True) == answers_agree(other, SHARES, 1e-4, shares=True) == agrees


def test_shares_of_nearly_nothing_agree_and_may_change_places():
    one = answer([0.5, 1e-12, 1e-13, 0.0], [5, 6, 7, 8])
    assert answers_agree(one, answer([0.5, 2e-12, 0.0, 0.0], [5, 7, 6, 8]), 1e-4, shares=True)
    nothing_known = answer([0.0, 0.0, 0.0], [5, 6, 7])
    assert answers_agree(nothing_known, answer([0.0, 0.0, 0.0], [6, 5, 7]), 1e-4, shares=True)
