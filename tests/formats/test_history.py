import numpy as np
import pytest

from formats.history import PADDING, encode_histories, known_window, start_index


def history(*items):
    return np.array(items, dtype=np.int32)


def test_the_start_is_the_index_after_the_last_item():
    assert start_index(7) == 7 + 1


def test_a_mixed_batch_is_right_aligned_behind_its_start():
    encoded = encode_histories([history(1, 2), history(), history(3, 4, 5), history(1, 2, 3, 4, 5)], 3, items=5)
    assert encoded.tolist() == [[0, 6, 1, 2], [0, 0, 0, 6], [6, 3, 4, 5], [6, 3, 4, 5]]
    assert encoded.dtype == np.int32
    assert PADDING == 0


def test_unknown_items_are_skipped_before_the_window_is_cut():
    assert known_window(history(1, 2, 0, 3, 0, 0), 2).tolist() == [2, 3]
    assert encode_histories([history(1, 2, 0, 3, 0, 0)], 2, items=3).tolist() == [[4, 2, 3]]


def test_a_history_of_unknown_items_is_the_start_alone():
    assert encode_histories([history(0, 0)], 3, items=5).tolist() == [[0, 0, 0, 6]]


def test_nobody_is_an_empty_batch():
    assert encode_histories([], 3, items=5).shape == (0, 4)


@pytest.mark.parametrize("length", [0, 1, 2, 4, 5, 9])
def test_the_newest_event_stands_in_the_last_slot_whatever_the_length(length):
    items = history(*range(1, length + 1))
    (row,) = encode_histories([items], 4, items=20)
    kept = items[-4:].tolist()
    assert row.tolist() == [0] * (4 - len(kept)) + [21, *kept]


def test_a_history_is_left_as_it_was():
    items = history(1, 0, 2)
    encode_histories([items], 1, items=2)
    known_window(items, 1)
    assert items.tolist() == [1, 0, 2]
