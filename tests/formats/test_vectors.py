import numpy as np
import pytest

from formats import vectors
from formats.errors import WorkFailed
from formats.vectors import VECTORS, read_vectors

ITEMS, DIM = 7, 4


def unit():
    rows = np.random.default_rng(0).normal(size=(ITEMS, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def file(tmp_path):
    return tmp_path / VECTORS


def test_vectors_of_length_1_and_of_zeros_are_read(file):
    rows = unit()
    rows[2] = 0
    np.save(file, rows)
    np.testing.assert_array_equal(read_vectors(file, ITEMS, DIM), rows)


@pytest.mark.parametrize(("items", "dim"), [(ITEMS + 1, DIM), (ITEMS, DIM + 1), (DIM, ITEMS)])
def test_vectors_of_other_items_or_of_another_dim_are_refused(file, items, dim):
    np.save(file, unit())
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: header: .*\(7, 4\).*, not .*\({items}, {dim}\)"):
        read_vectors(file, items, dim)


@pytest.mark.parametrize("factor", [np.nan, np.inf, -np.inf, 1e-8, 1.01])
def test_a_row_that_is_no_unit_vector_is_refused_by_its_number(file, factor):
    rows = unit()
    rows[5] *= factor
    np.save(file, rows)
    with pytest.raises(WorkFailed, match=rf"{VECTORS}: row 5: length .* is neither 1 nor 0"):
        read_vectors(file, ITEMS, DIM)


def test_one_nan_is_refused(file):
    rows = unit()
    rows[6, 0] = np.nan
    np.save(file, rows)
    with pytest.raises(WorkFailed, match="row 6: length nan"):
        read_vectors(file, ITEMS, DIM)


@pytest.mark.parametrize("row", [0, 2, 3, 5, 6])
def test_every_block_of_rows_is_checked(file, monkeypatch, row):
    monkeypatch.setattr(vectors, "BLOCK", 3)
    rows = unit()
    rows[row] *= 2
    np.save(file, rows)
    with pytest.raises(WorkFailed, match=rf"row {row}: length 2 "):
        read_vectors(file, ITEMS, DIM)
