import numpy as np

from training.memory_based.groups import largest_of_each, place_in_group


def test_places_begin_anew_in_every_group():
    assert place_in_group(np.array([2, 2, 3, 7, 7, 7])).tolist() == [0, 1, 0, 0, 1, 2]
    assert place_in_group(np.array([], dtype=np.int64)).tolist() == []


def test_the_largest_of_each_group_come_first_and_of_equal_ones_the_earlier():
    group = np.array([0, 0, 0, 0, 4, 5, 5, 5])
    values = np.array([1.0, 3, 2, 3, 0, 7, 7, 7])
    assert largest_of_each(values, group, 2).tolist() == [1, 3, 4, 5, 6]
    assert largest_of_each(values, group, 9).tolist() == [1, 3, 2, 0, 4, 5, 6, 7]
