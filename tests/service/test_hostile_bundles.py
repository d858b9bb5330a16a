"""Bundles made to do harm, with every checksum right: refused by file and field, nothing outside them is read, the old one serves on."""

import json
import os

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from formats.bundle import CARD, GRAPH, ITEMS, MANIFEST, WARMUP, WARMUP_LIMIT_BYTES, sealed_manifest
from formats.manifests import sha256_of
from tests.service.models_folder import add_bundle
from tests.service.running import serve

EVIL = "model-1"


@pytest.fixture(scope="module")
def serving(tmp_path_factory, redis_server):
    """A service, and its models folder: `model-2` serves, each test makes `model-1` bad in its way."""
    folder = tmp_path_factory.mktemp("hostile")
    add_bundle(folder, 2)
    with serve(models_dir=folder, redis_url=redis_server, providers="cpu", redis_timeout_ms=5000) as running:
        yield running, folder


@pytest.fixture
def evil(serving):
    """The folder of a good bundle that the test spoils."""
    _, folder = serving
    add_bundle(folder, 1)
    yield folder / EVIL
    for file in (folder / EVIL).rglob("*"):
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    (folder / EVIL).rmdir()


def seal(path, **changes):
    """Make the checksums of a bundle right again, as whoever may write the folder can."""
    content = json.loads((path / MANIFEST).read_text())
    files = {file.name: sha256_of(file) for file in path.iterdir() if file.is_file() and file.name != MANIFEST}
    (path / MANIFEST).write_bytes(sealed_manifest({**content, "files": files, **changes}))


def assert_refused(serving, *named):
    """`model-1` cannot be activated, the reason names all of this, and `model-2` answers as before."""
    service, _ = serving
    response = service.client.post(f"/models/{EVIL}/activate")
    problem = response.json()
    assert response.status_code == 409, problem
    for word in named:
        assert word in problem["detail"]
    listed = service.client.get("/models")
    assert listed.status_code == 200
    assert listed.json()["active"] == "model-2"
    answer = service.recommend(user_id="u", history=[{"domain": "Books", "item_id": "B4"}]).json()
    assert (answer["model_version"], answer["source"]) == ("model-2", "model")
    return problem["detail"]


def change_graph(path, change):
    model = onnx.load(path / GRAPH)
    change(model)
    (path / GRAPH).write_bytes(model.SerializeToString())
    seal(path)


def tensor(model, name):
    return next(one for one in model.graph.initializer if one.name == name)


def keep_elsewhere(one, location):
    entries = {"location": location, "offset": "0", "length": str(len(one.raw_data))}
    one.ClearField("raw_data")
    one.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        one.external_data.add(key=key, value=value)


LOCATIONS = ["../../../../../../../../etc/passwd", "/etc/passwd", CARD, "numbers.bin", "*/_ORT_MEM_ADDR_/*", ""]


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_graph_whose_numbers_are_in_another_file_is_refused(serving, evil, location):
    change_graph(evil, lambda model: keep_elsewhere(tensor(model, "table"), location))
    assert_refused(serving, GRAPH, "external_data")


def test_also_if_that_file_is_part_of_the_bundle_and_has_the_right_numbers(serving, evil):
    def move(model):
        table = tensor(model, "table")
        (evil / "numbers.bin").write_bytes(table.raw_data)
        keep_elsewhere(table, "numbers.bin")

    change_graph(evil, move)
    assert_refused(serving, GRAPH, "external_data")


def outside():
    one = numpy_helper.from_array(np.zeros(4, dtype=np.float32), "outside")
    keep_elsewhere(one, "/etc/passwd")
    return one


def in_a_constant(model):
    model.graph.node.append(helper.make_node("Constant", [], ["unused"], value=outside()))


def in_a_branch(model):
    inner = helper.make_graph([], "inner", [], [], [outside()])
    branch = helper.make_graph([helper.make_node("If", ["c"], [], then_branch=inner, else_branch=inner)], "b", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], [], then_branch=branch, else_branch=branch))


def in_a_function(model):
    node = helper.make_node("Constant", [], ["out"], value=outside())
    model.functions.append(helper.make_function("ours", "f", [], ["out"], [node], model.opset_import))


def in_a_sparse_tensor(model):
    one = model.graph.sparse_initializer.add()
    one.values.CopyFrom(outside())
    one.indices.CopyFrom(numpy_helper.from_array(np.arange(4), "indices"))


def in_training_info(model):
    model.training_info.add().algorithm.initializer.append(outside())


@pytest.mark.parametrize("hide", [in_a_constant, in_a_branch, in_a_function, in_a_sparse_tensor, in_training_info])
def test_a_tensor_that_points_outside_is_found_wherever_it_stands(serving, evil, hide):
    change_graph(evil, hide)
    assert_refused(serving, GRAPH, "external_data")


@pytest.mark.parametrize("domain", ["com.microsoft", "evil"])
def test_operators_that_are_not_of_onnx_are_refused(serving, evil, domain):
    """Among them EPContext, by which TensorRT loads an engine from a path in the graph."""

    def add(model):
        model.opset_import.append(helper.make_opsetid(domain, 1))
        model.graph.node.append(helper.make_node("EPContext", ["history"], ["x"], domain=domain, ep_cache_context="/x"))

    change_graph(evil, add)
    assert_refused(serving, GRAPH, "domain", domain)


def remove_input(model):
    del model.graph.input[1]


def set_type(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64


def set_width(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7


def fix_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def forget_shape(model):
    model.graph.input[0].type.tensor_type.ClearField("shape")


def add_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch"]))


def rename_output(model):
    model.graph.output[0].name = "masked"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (remove_input, "input exclude: missing"),
        (set_type, "input history: of int64, not int32"),
        (set_width, "input history: of shape ('batch', 7)"),
        (fix_batch, "input history: of shape (1, 9)"),
        (forget_shape, "input history: of shape None"),
        (add_input, "input more: "),
        (rename_output, "output scores: missing"),
    ],
)
def test_a_graph_with_other_inputs_or_outputs_than_the_manifest_is_refused_by_name(serving, evil, change, named):
    change_graph(evil, change)
    assert_refused(serving, GRAPH, named)


def declare_huge(model):
    table = tensor(model, "table")
    table.ClearField("dims")
    table.dims.extend([2**40, 6])


def ask_for_huge(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array([2**46], dtype=np.int64), "huge"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["zeros"], ["nothing"], keepdims=0))
    multiply = next(node for node in model.graph.node if node.output[0] == "raw")
    multiply.output[0] = "raw_0"
    place = list(model.graph.node).index(multiply) + 1
    model.graph.node.insert(place, helper.make_node("Add", ["raw_0", "nothing"], ["raw"]))


def fail_when_it_runs(model):
    model.graph.initializer.append(numpy_helper.from_array(np.array([3, 5, 7], dtype=np.int64), "odd"))
    model.graph.node.insert(0, helper.make_node("Reshape", ["history", "odd"], ["reshaped"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["reshaped"], ["sum"], keepdims=0))
    model.graph.node.insert(2, helper.make_node("Cast", ["sum"], ["nothing"], to=TensorProto.FLOAT))
    multiply = next(node for node in model.graph.node if node.output[0] == "raw")
    multiply.output[0] = "raw_0"
    place = list(model.graph.node).index(multiply) + 1
    model.graph.node.insert(place, helper.make_node("Add", ["raw_0", "nothing"], ["raw"]))


def answer_nan(model):
    table = tensor(model, "scored")
    table.raw_data = np.full(table.dims, np.nan, dtype=np.float32).tobytes()


@pytest.mark.parametrize("change", [declare_huge, ask_for_huge, fail_when_it_runs, answer_nan])
def test_a_graph_that_fails_or_wants_all_memory_is_refused(serving, evil, change):
    change_graph(evil, change)
    assert_refused(serving, GRAPH)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"hello",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\xff" * 100,
        b"ORTM" * 10,
        b"\x3a\x02\x62\x70",
        b"\x3b\x3c",
    ],
)
def test_a_graph_that_is_no_onnx_file_is_refused(serving, evil, content):
    (evil / GRAPH).write_bytes(content)
    seal(evil)
    assert_refused(serving, GRAPH)


@pytest.mark.parametrize("name", ["../outside", "sub/file", "..", "/etc/passwd", "a\\b"])
def test_a_manifest_that_names_files_elsewhere_is_refused(serving, evil, name):
    files = json.loads((evil / MANIFEST).read_text())["files"]
    seal(evil, files={**files, name: "0" * 64})
    assert_refused(serving, MANIFEST, "files: a name leaves the bundle's folder")


def test_a_manifest_that_names_a_folder_as_a_file_is_refused(serving, evil):
    (evil / "more").mkdir()
    files = json.loads((evil / MANIFEST).read_text())["files"]
    seal(evil, files={**files, "more": "0" * 64})
    assert_refused(serving, "more", "not a regular file")


@pytest.mark.parametrize("name", [GRAPH, ITEMS, WARMUP, CARD, MANIFEST])
def test_links_in_a_bundle_are_refused_even_if_what_they_lead_to_is_right(serving, evil, name, tmp_path):
    (evil / name).rename(tmp_path / name)
    (evil / name).symlink_to(tmp_path / name)
    assert_refused(serving, name, "not a regular file")


def test_a_pipe_in_a_bundle_is_not_waited_for(serving, evil):
    (evil / CARD).unlink()
    os.mkfifo(evil / CARD)
    assert_refused(serving, CARD, "not a regular file")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model_version": "model-2"}, "model_version"),
        ({"model_version": "../model-2"}, "model_version"),
        ({"schema_version": 2}, "schema_version"),
        ({"created_at": "0001-01-01T00:00:00"}, "created_at"),
        ({"created_at": "9999-12-31T23:59:59"}, "created_at"),
        ({"items_per_domain": {"Books": 10**15, "Toys": 25, "Games": 5}}, "domain"),
        ({"items_per_domain": {"Books": -5, "Toys": 70, "Games": 5}}, "domain"),
        ({"max_history": 10**12}, "inputs"),
        ({"dim": 10**15}, "header"),
        ({"domains": []}, "domains"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused_by_field(serving, evil, changes, field):
    seal(evil, **changes)
    assert_refused(serving, EVIL, f"{field}: ")


def test_a_manifest_of_many_brackets_is_refused_and_the_list_of_models_still_comes(serving, evil):
    (evil / MANIFEST).write_bytes(b'{"schema_version":1,"evaluation":' + b"[" * 200_000)
    assert_refused(serving, MANIFEST, "not JSON")


ITEM_CHANGES = {
    "item_id": [
        ("numbers", lambda items: items.with_columns(item_id=pl.int_range(pl.len()))),
        ("objects", lambda items: items.with_columns(item_id=pl.lit(b"\x80\x04cos\nsystem\n"))),
        ("missing", lambda items: items.with_columns(item_id=pl.lit(None, pl.String))),
        ("one id", lambda items: items.with_columns(item_id=pl.lit("same"))),
    ],
    "item_index": [
        ("text", lambda items: items.with_columns(item_index=pl.lit("x"))),
        ("fractions", lambda items: items.with_columns(item_index=pl.lit(0.5))),
        ("missing", lambda items: items.with_columns(item_index=pl.lit(None, pl.Int32))),
    ],
    "popularity": [
        ("text", lambda items: items.with_columns(popularity=pl.lit("x"))),
        ("lists", lambda items: items.with_columns(popularity=pl.lit([1, 2]))),
        ("missing", lambda items: items.with_columns(popularity=pl.lit(None, pl.Int64))),
    ],
    "title": [("bytes", lambda items: items.with_columns(title=pl.lit(b"\x80\x04.")))],
    "category": [("structs", lambda items: items.with_columns(category=pl.struct("item_id")))],
    "domain": [
        ("none of it", lambda items: items.drop("domain")),
        ("many rows", lambda items: pl.concat([items] * 100_000)),
    ],
}


@pytest.mark.parametrize(
    ("field", "change"),
    [
        pytest.param(field, change, id=f"{field}-{what}")
        for field, changes in ITEM_CHANGES.items()
        for what, change in changes
    ],
)
def test_a_catalogue_of_other_types_is_refused_by_column(serving, evil, field, change):
    change(pl.read_parquet(evil / ITEMS)).write_parquet(evil / ITEMS)
    seal(evil)
    assert_refused(serving, ITEMS, f"{field}: ")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"\xff" * 64 + b"PAR1", b"item_index,item_id\n1,a\n"])
def test_a_catalogue_that_is_no_parquet_is_refused(serving, evil, content):
    (evil / ITEMS).write_bytes(content)
    seal(evil)
    assert_refused(serving, ITEMS)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "holds no request"),
        (b"{\n", f"{WARMUP}:1: "),
        (b"\xff\xfe\n", f"{WARMUP}:1: "),
        (b'{"user_id": "w", "history": [], "k": "x", "answer": {}}\n', f"{WARMUP}:1: k: "),
        (b'{"user_id": "w", "history": [], "k": -1, "answer": {}}\n', f"{WARMUP}:1: k: "),
        (b'{"user_id": "w", "history": [], "k": 1000000000, "answer": {}}\n', f"{WARMUP}:1: k: "),
        (b"[" * 100_000, f"{WARMUP}:1: "),
        (b"\n" * (WARMUP_LIMIT_BYTES + 1), "bytes, at most"),
    ],
)
def test_recorded_requests_that_are_none_or_too_many_are_refused(serving, evil, content, named):
    (evil / WARMUP).write_bytes(content)
    seal(evil)
    assert_refused(serving, WARMUP, named)


def test_vectors_that_would_be_unpickled_are_refused(serving, evil):
    np.save(evil / "vectors.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    seal(evil)
    assert_refused(serving, "vectors.npy", "header")


def test_nothing_of_another_file_is_in_the_refusal(serving, evil):
    """Errors name files and fields, never what a file outside the bundle holds."""
    change_graph(evil, lambda model: keep_elsewhere(tensor(model, "table"), "/etc/passwd"))
    assert "root" not in assert_refused(serving, GRAPH).replace(str(evil), "")


def test_the_bundle_that_was_spoilt_serves_once_it_is_whole(serving, evil):
    """The tests above refuse what was spoilt, not what the fixture made."""
    service, _ = serving
    assert evil.is_dir()
    assert service.client.post(f"/models/{EVIL}/activate").status_code == 200
    assert service.client.post("/models/model-2/activate").status_code == 200
