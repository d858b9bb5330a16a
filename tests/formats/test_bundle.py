import errno
import hashlib
import json
import os
import shutil
from datetime import timedelta
from io import BytesIO

import numpy as np
import polars as pl
import pytest

from formats.bundle import (
    CARD,
    GRAPH,
    ITEMS,
    MANIFEST,
    WARMUP,
    graph_inputs,
    graph_outputs,
    list_bundles,
    newest_bundle,
    read_bundle,
    sealed_manifest,
    write_bundle,
)
from formats.errors import WorkFailed, WrongUse
from formats.neighbours import NEIGHBOURS
from formats.vectors import VECTORS

FILES = (GRAPH, ITEMS, WARMUP, CARD, VECTORS, NEIGHBOURS)


@pytest.fixture
def copy(tiny_bundle, tmp_path):
    """A copy that may be damaged."""
    return shutil.copytree(tiny_bundle.path, tmp_path / "models" / tiny_bundle.path.name)


def manifest_of(path):
    return json.loads((path / MANIFEST).read_text())


def change_manifest(path, **changes):
    """Another manifest with a digest that fits, as a program with a mistake would write it."""
    content = {name: value for name, value in {**manifest_of(path), **changes}.items() if value is not ...}
    (path / MANIFEST).write_bytes(sealed_manifest(content))


def replace_file(path, name, content):
    """Another file with a checksum that fits, as a program with a mistake would write it."""
    (path / name).write_bytes(content)
    files = {**manifest_of(path)["files"], name: hashlib.sha256(content).hexdigest()}
    change_manifest(path, files=files)


def parquet(table):
    buffer = BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def test_a_bundle_reads_back_as_it_was_written(tiny_bundle):
    read = read_bundle(tiny_bundle.path)
    assert read == tiny_bundle
    assert read.manifest.items == 120 + 14 + 6
    assert len(read.items()) == read.manifest.items
    assert read.warmup() == tiny_bundle.warmup()
    assert read.graph.read_bytes()


def test_it_holds_these_files_and_no_pickle(tiny_bundle):
    assert {file.name for file in tiny_bundle.path.iterdir()} == {MANIFEST, *FILES}


def test_the_manifest_describes_the_tensors_of_the_contract(tiny_bundle):
    manifest = tiny_bundle.manifest
    assert manifest.inputs == graph_inputs(3, manifest.max_history + 1)
    assert manifest.outputs == graph_outputs(3)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.33, 0.71, 1.0])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_flipped_bit_is_refused_naming_the_file(copy, name, where, bit):
    content = bytearray((copy / name).read_bytes())
    content[int(where * (len(content) - 1))] ^= 1 << bit
    (copy / name).write_bytes(content)
    with pytest.raises(WorkFailed, match=rf"{name}: SHA-256 differs"):
        read_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_refused_naming_it(copy, name):
    (copy / name).write_bytes((copy / name).read_bytes()[:-1])
    with pytest.raises(WorkFailed, match=rf"{name}: SHA-256 differs"):
        read_bundle(copy)


def test_a_flipped_bit_anywhere_in_the_manifest_is_refused_naming_it(copy):
    content = (copy / MANIFEST).read_bytes()
    for place in range(0, len(content), 11):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        (copy / MANIFEST).write_bytes(damaged)
        with pytest.raises(WorkFailed, match=r"manifest\.json"):
            read_bundle(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\udcff"])
def test_a_manifest_that_is_none_is_refused_naming_it(copy, text):
    (copy / MANIFEST).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WorkFailed, match=r"manifest\.json: "):
        read_bundle(copy)


@pytest.mark.parametrize("version", [0, 2, "1", None, ...])
def test_another_schema_version_is_refused_saying_which_one_is_read(copy, version):
    change_manifest(copy, schema_version=version)
    with pytest.raises(WorkFailed, match=r"manifest.json: schema_version: .*this program reads 1"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("domains", []),
        ("domains", ...),
        ("max_history", 0),
        ("max_history", "six"),
        ("dim", ...),
        ("model_version", "../x"),
        ("model_version", ""),
        ("created_at", "yesterday"),
        ("files", []),
        ("opset", None),
        ("surprise", 1),
        ("items_per_domain", {"Games": 14, "Books": 120, "Toys": 6}),
        ("items_per_domain", {"Books": 120, "Games": 14}),
    ],
)
def test_a_wrong_field_is_refused_by_name(copy, field, value):
    change_manifest(copy, **{field: value})
    with pytest.raises(WorkFailed, match=rf"manifest.json: {field}: "):
        read_bundle(copy)


@pytest.mark.parametrize("field", ["inputs", "outputs"])
def test_tensors_of_another_contract_are_refused_by_name(copy, field):
    tensors = manifest_of(copy)[field]
    tensors[0]["shape"] = ["batch", 99]
    change_manifest(copy, **{field: tensors})
    with pytest.raises(WorkFailed, match=rf"manifest.json: {field}: not those of schema version 1"):
        read_bundle(copy)


def test_another_max_history_does_not_fit_the_inputs(copy):
    change_manifest(copy, max_history=manifest_of(copy)["max_history"] + 1)
    with pytest.raises(WorkFailed, match=r"manifest.json: inputs: "):
        read_bundle(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(WorkFailed, match=name):
        read_bundle(copy)
    change_manifest(copy, files={n: sha for n, sha in manifest_of(copy)["files"].items() if n != name})
    with pytest.raises(WorkFailed, match=f"manifest.json: files: {name} is missing"):
        read_bundle(copy)


def test_a_file_too_many_is_named(copy):
    (copy / "evil.pkl").write_bytes(b"x")
    with pytest.raises(WorkFailed, match=r"differ: evil\.pkl"):
        read_bundle(copy)


@pytest.mark.parametrize("name", ["../other", "a/b", "..", "a\\b"])
def test_a_name_that_leaves_the_folder_is_refused(copy, name):
    change_manifest(copy, files={**manifest_of(copy)["files"], name: "0" * 64})
    with pytest.raises(WorkFailed, match="a name leaves the bundle's folder"):
        read_bundle(copy)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(WorkFailed, match=r"manifest\.json: missing"):
        read_bundle(tmp_path)


@pytest.mark.parametrize("column", ["item_index", "item_id", "domain", "popularity"])
def test_a_catalogue_without_a_column_is_refused_by_name(copy, tiny_bundle, column):
    replace_file(copy, ITEMS, parquet(tiny_bundle.items().drop(column)))
    with pytest.raises(WorkFailed, match=rf"items.parquet: {column}: column is missing"):
        read_bundle(copy)


@pytest.fixture
def mixed_copy(tiny_mixed_bundle, tmp_path):
    """A copy of a bundle that serves a mixture."""
    return shutil.copytree(tiny_mixed_bundle.path, tmp_path / "models" / tiny_mixed_bundle.path.name)


@pytest.mark.parametrize("column", ["recent_4d", "recent_14d", "recent_60d", "popularity"])
def test_a_catalogue_without_the_counts_that_a_mixture_reads_is_refused_by_name(mixed_copy, tiny_mixed_bundle, column):
    replace_file(mixed_copy, ITEMS, parquet(tiny_mixed_bundle.items().drop(column)))
    with pytest.raises(WorkFailed, match=rf"items.parquet: {column}: column is missing"):
        read_bundle(mixed_copy)


@pytest.mark.parametrize("half_lives", [[], [4.0], [4.0, 14.0, 60.0, 90.0]])
def test_half_lives_that_are_not_those_of_the_graph_are_refused(mixed_copy, half_lives):
    change_manifest(mixed_copy, recent_half_lives_days=half_lives)
    with pytest.raises(WorkFailed, match=r"manifest.json: inputs: not those of schema version 1"):
        read_bundle(mixed_copy)


def test_other_half_lives_have_other_columns(mixed_copy):
    change_manifest(mixed_copy, recent_half_lives_days=[4.0, 14.0, 30.5])
    with pytest.raises(WorkFailed, match=r"items.parquet: recent_30.5d: column is missing"):
        read_bundle(mixed_copy)


def test_the_manifest_of_a_mixture_describes_its_counts(tiny_mixed_bundle):
    manifest = tiny_mixed_bundle.manifest
    assert manifest.inputs == graph_inputs(3, manifest.max_history + 1, (3, manifest.items + 2))
    assert manifest.inputs[-1].name == "recent"
    assert tiny_mixed_bundle.recent().dtype == np.float32


def test_a_manifest_without_the_fields_of_a_mixture_is_that_of_a_bundle_without_one(copy, tiny_bundle):
    change_manifest(copy, mixture=..., recent_half_lives_days=...)
    read = read_bundle(copy)
    assert read.manifest.mixture is None
    assert read.recent().shape == (0, tiny_bundle.manifest.items + 2)


def npy(array):
    buffer = BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_vectors_and_neighbours_read_back_for_every_item(tiny_bundle):
    manifest = tiny_bundle.manifest
    assert tiny_bundle.vectors().shape == (manifest.items, manifest.dim)
    assert tiny_bundle.neighbours().shape == (manifest.items, 3, 10)


def test_a_bundle_without_similar_items_is_a_bundle(copy):
    for name in (VECTORS, NEIGHBOURS):
        (copy / name).unlink()
    change_manifest(
        copy, files={n: sha for n, sha in manifest_of(copy)["files"].items() if n not in {VECTORS, NEIGHBOURS}}
    )
    read = read_bundle(copy)
    assert read.vectors() is None
    assert read.neighbours() is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (VECTORS, lambda vectors: 2 * vectors),
        (VECTORS, lambda vectors: vectors[1:]),
        (VECTORS, lambda vectors: vectors.astype(np.float16)),
        (NEIGHBOURS, lambda neighbours: neighbours[:, ::-1]),
        (NEIGHBOURS, lambda neighbours: neighbours[:, :, :5]),
    ],
)
def test_vectors_and_neighbours_that_do_not_fit_the_catalogue_are_refused_by_name(copy, tiny_bundle, name, change):
    whole = {VECTORS: tiny_bundle.vectors, NEIGHBOURS: tiny_bundle.neighbours}[name]()
    replace_file(copy, name, npy(np.ascontiguousarray(change(whole))))
    with pytest.raises(WorkFailed, match=rf"{name}: (header|row)"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda items: items.reverse(), "domain"),
        (lambda items: items.head(-1), "domain"),
        (lambda items: pl.concat([items, items.tail(1)]), "domain"),
        (lambda items: pl.concat([items[1:2], items[:1], items[2:]]), "item_index"),
        (lambda items: items.with_columns(pl.col("item_index") - 1), "item_index"),
        (lambda items: items.with_columns(domain=pl.lit(None, pl.String)), "domain"),
    ],
)
def test_a_catalogue_in_another_order_than_the_graphs_is_refused(copy, tiny_bundle, change, named):
    replace_file(copy, ITEMS, parquet(change(tiny_bundle.items())))
    with pytest.raises(WorkFailed, match=rf"items.parquet: {named}: "):
        read_bundle(copy)


def test_the_newest_bundle_is_the_one_created_last_whatever_its_name(copy, tiny_bundle):
    models = copy.parent
    for name, hours in (("zzz", -1), ("aaa", +1), ("mmm", 0)):
        other = shutil.copytree(copy, models / name)
        created = tiny_bundle.manifest.created_at + timedelta(hours=hours)
        change_manifest(other, model_version=name, created_at=created.isoformat())
    assert newest_bundle(models).path.name == "aaa"


def test_unfinished_folders_and_other_things_are_no_bundles(copy, tmp_path):
    shutil.copytree(copy, copy.parent / ".x.12345678.partial")
    change_manifest(copy.parent / ".x.12345678.partial", created_at="2100-01-01T00:00:00Z")
    (copy.parent / "notes.txt").write_text("x")
    assert newest_bundle(copy.parent).path == copy
    with pytest.raises(WorkFailed, match="no such models folder"):
        newest_bundle(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(WorkFailed, match="holds no bundle"):
        newest_bundle(tmp_path / "empty")


def test_a_damaged_newest_bundle_is_an_error_and_not_passed_over(copy):
    (copy / GRAPH).write_bytes(b"x")
    with pytest.raises(WorkFailed, match=GRAPH):
        newest_bundle(copy.parent)


def test_a_list_of_bundles_has_the_newest_first_and_damaged_ones_last_with_what_is_wrong(copy, tiny_bundle):
    models = copy.parent
    for name, hours in (("zzz", -1), ("aaa", +1)):
        other = shutil.copytree(copy, models / name)
        created = tiny_bundle.manifest.created_at + timedelta(hours=hours)
        change_manifest(other, model_version=name, created_at=created.isoformat())
    shutil.copytree(copy, models / "broken")
    (models / "broken" / MANIFEST).write_text("{")
    found = list_bundles(models)
    assert list(found) == ["aaa", copy.name, "zzz", "broken"]
    assert MANIFEST in str(found["broken"])
    assert found["aaa"].model_version == "aaa"
    assert list_bundles(models / "nowhere") == {}


def rewrite(bundle, models, version="copy", spoil=lambda _: None):
    """Write the files of a bundle as another one."""

    def fill(folder):
        for name in FILES:
            shutil.copy(bundle.path / name, folder / name)
        spoil(folder)

    def manifest(files):
        return bundle.manifest.model_copy(update={"model_version": version, "files": files})

    return write_bundle(models, manifest, version, fill)


def test_a_written_bundle_is_whole_and_readable(tiny_bundle, tmp_path):
    written = rewrite(tiny_bundle, tmp_path / "models")
    assert written.path == tmp_path / "models" / "copy"
    assert written.manifest.files == tiny_bundle.manifest.files
    assert read_bundle(written.path) == written


def test_an_existing_version_is_refused_and_left_alone(tiny_bundle, tmp_path):
    written = rewrite(tiny_bundle, tmp_path)
    before = {file: file.read_bytes() for file in written.path.iterdir()}
    with pytest.raises(WrongUse, match="exists already"):
        rewrite(tiny_bundle, tmp_path)
    assert {file: file.read_bytes() for file in written.path.iterdir()} == before
    assert list(tmp_path.iterdir()) == [written.path]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / GRAPH).unlink(),
        lambda folder: (folder / ITEMS).write_bytes(parquet(pl.DataFrame({"a": [1]}))),
    ],
)
def test_a_bundle_that_could_not_be_read_is_never_written(tiny_bundle, tmp_path, spoil):
    with pytest.raises(WorkFailed):
        rewrite(tiny_bundle, tmp_path, spoil=spoil)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_bundle(tiny_bundle, tmp_path):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WorkFailed, match="No space left on device"):
        rewrite(tiny_bundle, tmp_path, spoil=full)
    assert list(tmp_path.iterdir()) == []
