from pathlib import Path

import numpy as np
import pytest

from formats import vectors
from formats.errors import WorkFailed
from formats.vectors import VECTORS, read_vectors, write_vectors

ITEMS, DIM = 7, 4


def unit(items=ITEMS, dim=DIM, seed=0):
    rows = np.random.default_rng(seed).normal(size=(items, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def file(tmp_path):
    return tmp_path / VECTORS


def test_vectors_read_back_as_they_were_written_and_are_only_mapped(file):
    write_vectors(file, unit())
    read = read_vectors(file, ITEMS, DIM)
    np.testing.assert_array_equal(read, unit())
    assert read.dtype == np.float32
    assert type(read) is np.ndarray
    assert isinstance(read.base, np.memmap)
    assert not read.flags.writeable


@pytest.mark.parametrize(("items", "dim"), [(1, 1), (ITEMS, DIM), (100_000, 3)])
def test_the_file_is_the_one_that_numpy_writes(file, items, dim):
    write_vectors(file, unit(items, dim))
    written = file.read_bytes()
    np.save(file, unit(items, dim))
    assert file.read_bytes() == written


def test_vectors_in_another_order_or_precision_are_written_as_the_format_has_them(file):
    write_vectors(file, np.asfortranarray(unit().astype(np.float64)))
    np.testing.assert_array_equal(read_vectors(file, ITEMS, DIM), unit())


def test_an_item_of_which_nothing_is_known_has_a_vector_of_zeros(file):
    rows = unit()
    rows[2] = 0
    write_vectors(file, rows)
    np.testing.assert_array_equal(read_vectors(file, ITEMS, DIM), rows)


@pytest.mark.parametrize("dtype", ["<f2", "<f8", ">f4", "<i4"])
def test_another_type_is_refused(file, dtype):
    np.save(file, unit().astype(dtype))
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: header: .*{dtype}.*, not .*<f4"):
        read_vectors(file, ITEMS, DIM)


@pytest.mark.parametrize("rows", [unit(ITEMS + 1), unit(ITEMS - 1), unit(dim=DIM + 1), unit().ravel(), unit()[None]])
def test_another_shape_is_refused(file, rows):
    np.save(file, rows)
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: header: .*, not .*\(7, 4\)"):
        read_vectors(file, ITEMS, DIM)


def test_fortran_order_is_refused(file):
    np.save(file, np.asfortranarray(unit()))
    with pytest.raises(
        WorkFailed, match=rf"{VECTORS}: header: .*'fortran_order': True.*, not .*'fortran_order': False"
    ):
        read_vectors(file, ITEMS, DIM)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e-8, 1.01])
def test_a_row_that_is_no_unit_vector_is_refused_by_its_number(file, value):
    rows = unit()
    rows[5] *= value
    np.save(file, rows)
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: row 5: length .* is neither 1 nor 0"):
        read_vectors(file, ITEMS, DIM)


def test_one_nan_is_refused(file):
    rows = unit()
    rows[6, 0] = np.nan
    np.save(file, rows)
    with pytest.raises(WorkFailed, match=r"row 6: length nan"):
        read_vectors(file, ITEMS, DIM)


@pytest.mark.parametrize("row", [0, 2, 3, 5, 6])
def test_every_block_of_rows_is_checked(file, monkeypatch, row):
    monkeypatch.setattr(vectors, "BLOCK", 3)
    rows = unit()
    rows[row] *= 2
    np.save(file, rows)
    with pytest.raises(WorkFailed, match=rf"row {row}: length 2 "):
        read_vectors(file, ITEMS, DIM)


def test_pickled_objects_are_refused_and_not_loaded(file):
    np.save(file, np.array([[object()]]), allow_pickle=True)
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: header: .*'\|O'"):
        read_vectors(file, ITEMS, DIM)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04", b"no\narray"])
def test_what_is_no_array_is_refused_in_one_line(file, content):
    file.write_bytes(content)
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: header: ") as refused:
        read_vectors(file, ITEMS, DIM)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", range(128))
def test_a_damaged_header_is_refused_wherever_the_damage_is(file, place):
    write_vectors(file, unit())
    content = bytearray(file.read_bytes())
    content[place] ^= 0x81
    file.write_bytes(content)
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: header: "):
        read_vectors(file, ITEMS, DIM)


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole[:128], lambda whole: whole + b"x"])
def test_a_file_of_another_size_is_refused(file, change):
    write_vectors(file, unit())
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: size: \d+ bytes do not hold 7 items of dim 4"):
        read_vectors(file, ITEMS, DIM)


def test_a_missing_file_is_refused(file):
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: No such file"):
        read_vectors(file, ITEMS, DIM)


def test_a_full_disk_says_so():
    with pytest.raises(OSError, match="No space left on device"):
        write_vectors(Path("/dev/full"), unit())
