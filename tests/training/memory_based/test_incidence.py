import numpy as np

from training.memory_based.incidence import incidence


def test_rows_have_ones_where_they_have_something_however_often():
    column = np.array([4, 1, 4, 0], dtype=np.int32)
    column.flags.writeable = False  # as a mapped file is
    matrix = incidence(column, np.array([0, 3, 3, 4]), columns=5)
    assert matrix.toarray().tolist() == [[0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert matrix.nnz == 3
    assert column.tolist() == [4, 1, 4, 0]
