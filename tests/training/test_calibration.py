import math

import numpy as np
import pytest

from training.calibration import confidence, expected_calibration_error, first_is_right


def scores(*rows):
    return np.array(rows, dtype=np.float32)


def test_confidence_is_the_softmax_of_the_first_place():
    found = confidence(scores([0, math.log(3), -math.inf], [5, 5, 5]), "logits")
    assert found == pytest.approx([3 / 4, 1 / 3])


def test_shares_are_probabilities_already_but_for_what_is_no_candidate():
    found = confidence(scores([0.3, 0.1, -math.inf], [0, 0, -math.inf], [2, 4, 2]), "shares")
    assert found == pytest.approx([3 / 4, 1 / 2, 1 / 2])


def test_large_scores_do_not_overflow():
    assert confidence(scores([500, 490, -500]), "logits") == pytest.approx(1 / (1 + math.exp(-10)), rel=1e-4)


def test_the_first_place_is_right_only_if_nothing_is_above_the_target_and_shared_among_equals():
    found = first_is_right(
        scores([3, 1, 2], [3, 1, 2], [2, 2, 2], [2, 2, 1]), np.array([0, 2, 1, 0]), np.array([1, 2, 2, 1.5])
    )
    assert found == pytest.approx([1, 0, 1 / 3, 1 / 2])


def test_calibration_error_by_hand():
    # Two bins of two: |(.1 + .2) / 2 - 0| and |(.6 + .8) / 2 - 1/2|, each for half the cases.
    assert expected_calibration_error(np.array([0.8, 0.1, 0.6, 0.2]), np.array([1, 0, 0, 0]), bins=2) == pytest.approx(
        (0.15 + 0.2) / 2
    )


def test_bins_hold_equally_many_cases_not_equal_widths():
    """All confidences below 1/15: with bins of equal width this would be one bin, and its errors would cancel."""
    confident = np.array([0.01, 0.01, 0.05, 0.05])
    right = np.array([0.05, 0.05, 0.01, 0.01])
    assert expected_calibration_error(confident, right, bins=2) == pytest.approx(0.04)


def test_fewer_cases_than_bins_have_one_each():
    assert expected_calibration_error(np.array([0.5, 0.25]), np.array([1.0, 0.0])) == pytest.approx((0.5 + 0.25) / 2)


def test_a_calibrated_scorer_has_an_error_of_noise_only_and_an_overconfident_one_its_excess():
    random = np.random.default_rng(0)
    confident = random.random(60_000)
    right = (random.random(60_000) < confident).astype(float)
    assert expected_calibration_error(confident, right) < 0.01
    assert expected_calibration_error(np.minimum(confident + 0.2, 1), right) == pytest.approx(
        0.2 - 0.2**2 / 2, abs=0.01
    )
