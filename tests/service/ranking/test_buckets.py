"""Buckets: few shapes, the smallest that holds a batch, and padding that changes nobody's answer."""

import numpy as np
import pytest

from service.ranking.buckets import EXCLUDED, INCLUDED, Buckets, Shape, pad
from service.ranking.session import Batch
from tests.service.views import NO_COUNTS


def batch(rows, excluded=1, included=1):
    chance = np.random.default_rng(rows)
    return Batch(
        history=chance.integers(1, 9, size=(rows, 4)).astype(np.int32),
        exclude=chance.integers(1, 9, size=(rows, excluded)).astype(np.int32),
        restricted=chance.random((rows, 3)) < 0.5,
        include=chance.integers(1, 9, size=(rows, included)).astype(np.int32),
        k=10,
        recent=NO_COUNTS,
    )


@pytest.mark.parametrize(
    ("max_batch", "rows"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (32, (1, 2, 4, 8, 16, 32)),
        (48, (1, 2, 4, 8, 16, 32, 48)),
        (64, (1, 2, 4, 8, 16, 32, 64)),
        (1024, (1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_batches_are_powers_of_two_and_never_above_the_largest(max_batch, rows):
    assert Buckets.up_to(max_batch).rows == rows


def test_the_smallest_shape_comes_first_and_the_largest_next():
    shapes = Buckets.up_to(32).shapes()
    assert len(set(shapes)) == len(shapes) == 6 * len(EXCLUDED) * len(INCLUDED)
    assert shapes[0] == Shape(1, EXCLUDED[0], INCLUDED[0])
    assert shapes[1] == Shape(32, EXCLUDED[-1], INCLUDED[-1])


def test_a_batch_takes_the_smallest_shape_that_holds_it():
    buckets = Buckets.up_to(64)
    for rows in range(1, 65):
        for excluded in (1, 64, 65, 4096):
            for included in (1, 2, 1024):
                shape = buckets.holding(batch(rows, excluded, included))
                fitting = [
                    one
                    for one in buckets.shapes()
                    if one.rows >= rows and one.excluded >= excluded and one.included >= included
                ]
                assert shape == min(fitting)


@pytest.mark.parametrize("sizes", [(65, 1, 1), (1, 4097, 1), (1, 1, 1025)])
def test_no_shape_holds_what_is_larger_than_all(sizes):
    assert Buckets.up_to(64).holding(batch(*sizes)) is None


def test_padding_leaves_the_requests_and_repeats_the_first_one():
    given = batch(3, excluded=5, included=2)
    padded = pad(given, Shape(8, 64, 1024))
    for name, width in (("history", 4), ("exclude", 64), ("restricted", 3), ("include", 1024)):
        before, after = getattr(given, name), getattr(padded, name)
        assert after.shape == (8, width)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after[:3, : before.shape[1]], before)
        assert not after[:, before.shape[1] :].any()
        assert (after[3:] == after[0]).all()
    assert (padded.k, padded.recent) == (given.k, given.recent)
