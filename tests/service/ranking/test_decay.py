"""Decayed counts against the sum that they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.ranking.decay import DecayedCounts, at_steady_rate

HALF_LIVES = [4.0, 14.0, 60.0]
events = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-90, 1), st.integers(1, 5)), max_size=30)


def reference(found, today, half_life):
    sums = {}
    for item_id, day, count in found:
        sums[item_id] = sums.get(item_id, 0) + count * 0.5 ** (max(0, today - day) / half_life)
    return sums


def add(counts, found):
    for item_id, day, count in found:
        counts.add(counts.rows([item_id]), np.array([day]), np.array([count], dtype=float))


@settings(deadline=None)
@given(events)
def test_an_event_loses_half_its_weight_in_every_half_life(found):
    counts = DecayedCounts(HALF_LIVES, today=0)
    add(counts, found)
    for row, half_life in enumerate(HALF_LIVES):
        expected = reference(found, 0, half_life)
        assert dict(zip(counts.item_ids, counts.counts[row], strict=True)) == pytest.approx(expected)


def test_counts_that_were_decayed_before_go_on_decaying():
    counts = DecayedCounts([4.0], today=8)
    counts.add_decayed(counts.rows(["a", "b"]), 4, np.array([[8.0, 2.0]]))
    counts.add(counts.rows(["b"]), np.array([8]), np.array([1.0]))
    np.testing.assert_allclose(counts.counts, [[4, 2]])


def test_thousands_of_items_have_room():
    counts = DecayedCounts([4.0], today=0)
    names = [f"i{n}" for n in range(5000)]
    for start in range(0, 5000, 700):
        rows = counts.rows(names[start : start + 700])
        counts.add(rows, np.zeros(len(rows), dtype=int), np.ones(len(rows)))
    assert counts.item_ids == names
    assert counts.counts.sum() == 5000
    assert "i4999" in counts
    assert "other" not in counts


def test_a_steady_rate_comes_to_its_sum():
    assert at_steady_rate(14) == pytest.approx(sum(0.5 ** (age / 14) for age in range(5000)))
