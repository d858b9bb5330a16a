"""Weights made of any estimate, as LC-NTG makes them of lambda."""

import numpy as np
import pytest
import torch

from training.estimators.remedy import correction_weights, weighted


def test_weights_follow_the_estimate_and_not_its_unit():
    weights = correction_weights([0.3, -1.0, 0.1])
    assert weights == pytest.approx(correction_weights([300, -1000, 100]))
    assert sum(weights) == pytest.approx(3)
    standard = np.array([0.3, -1.0, 0.1]) + 0.2
    shares = np.exp(standard / standard.std())
    assert weights == pytest.approx(3 * (0.95 * shares / shares.sum() + 0.05 / 3), rel=1e-5)


def test_an_estimate_that_says_nothing_changes_nothing():
    assert correction_weights([0.7, 0.7, 0.7, 0.7]) == pytest.approx([1, 1, 1, 1])


def test_every_target_weighs_as_its_domain():
    class Batch:
        domain = torch.tensor([0, 0, 1])

    losses = weighted(lambda states, _vectors, _batch: states, [0.5, 2.0])
    assert losses(torch.tensor([1.0, 2.0, 3.0]), None, Batch()).tolist() == [0.5, 1.0, 6.0]
