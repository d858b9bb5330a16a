"""Means per domain over seeds, by hand."""

import numpy as np
import polars as pl
import pytest

from training.studies.oracle import domain_means, harm


def table(values, user=None, domain=None):
    n = len(values)
    return pl.DataFrame({"user": user or list(range(n)), "domain": domain or [0] * n, "v": values})


def test_means_of_each_seed_and_of_all_events():
    tables = [table([1.0, 2, 9], domain=[0, 0, 1]), table([6.0, 1], domain=[0, 1])]
    first, second = domain_means(tables, pl.col("v"))
    assert first.by_seed.tolist() == [1.5, 6]
    assert first.value == pytest.approx(3)
    assert second.by_seed.tolist() == [9, 1]
    assert second.value == 5
    assert np.isnan([first.low, first.high, first.at_least]).all()  # too few users
    assert first.to_json()["by_seed"] == [1.5, 6]


def test_users_of_two_seeds_are_different_people():
    """If they were the same, their opposite values would leave no uncertainty."""
    values = np.repeat([1.0, -1.0], 20)
    (found,) = domain_means([table(values.tolist()), table((-values).tolist())], pl.col("v"))
    assert found.low < -0.1 < 0.1 < found.high
    assert found.low < found.at_least < found.value == 0


def test_harm_counts_losses_alone():
    assert harm(np.array([0.5, -0.1, -0.2])) == pytest.approx(0.3)
    assert harm(np.array([0.5, 0.0])) == 0
