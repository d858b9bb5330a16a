import numpy as np
import pytest

from formats.errors import WorkFailed
from formats.neighbours import NEIGHBOURS, NEIGHBOURS_KEPT, read_neighbours

SIZES = (3, 2)


def table():
    """The other items of the first domain and all of the second, for every item."""
    found = np.zeros((5, 2, NEIGHBOURS_KEPT), dtype=np.int32)
    for row in range(5):
        others = [item for item in (1, 2, 3) if item != row + 1]
        found[row, 0, : len(others)] = others
    found[:, 1, :2] = 5, 4
    return found


@pytest.fixture
def file(tmp_path):
    return tmp_path / NEIGHBOURS


def test_neighbours_are_read(file):
    np.save(file, table())
    np.testing.assert_array_equal(read_neighbours(file, SIZES), table())


@pytest.mark.parametrize("sizes", [(3, 3), (3, 1), (5,), (2, 2, 1)])
def test_neighbours_of_other_items_or_domains_are_refused(file, sizes):
    np.save(file, table())
    with pytest.raises(WorkFailed, match=rf"{NEIGHBOURS}: header: .*\(5, 2, 10\).*, not "):
        read_neighbours(file, sizes)


@pytest.mark.parametrize(("number", "item"), [(0, 4), (0, -1), (1, 3), (1, 6)])
def test_a_neighbour_of_another_domain_than_its_place_says_is_refused(file, number, item):
    found = table()
    found[2, number, 1] = item
    np.save(file, found)
    first, last = ((1, 3), (4, 5))[number]
    with pytest.raises(
        WorkFailed, match=rf"row 2: domain {number + 1} has the items {first} to {last}, others stand there"
    ):
        read_neighbours(file, SIZES)
