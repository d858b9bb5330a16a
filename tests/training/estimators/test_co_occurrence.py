"""Similarity of domains by who likes what."""

import numpy as np
import pytest

from tests.reference.datasets import write_dataset
from training.estimators.co_occurrence import similarities


def test_domains_that_go_together_are_similar_and_others_are_not(tmp_path):
    """A and B are liked by the same taste, C by another one."""
    random = np.random.default_rng(0)
    taste, other = random.integers(0, 2, (2, 600))
    rows = [[1 + t, 3 + t, 5 + o] for t, o in zip(taste, other, strict=True)]
    dataset = write_dataset(tmp_path / "d", {"A": 2, "B": 2, "C": 2}, rows)
    found = similarities(dataset, seed=0)
    assert found[0, 1] == pytest.approx(1, abs=0.02)  # chi² / n of a table that is a permutation
    assert np.abs(found[:2, 2]).max() < 0.02
    assert (found == found.T).all()
    assert np.diagonal(found).tolist() == [0, 0, 0]
