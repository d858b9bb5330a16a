import numpy as np
import pytest

from service.experiments.analysis.lists import Shown, lists
from service.experiments.analysis.ranks import RankCounts, by_rank


def counts(shown, clicked):
    return RankCounts(np.array(shown), np.array(clicked))


def test_longer_lists_lose_click_through_but_not_by_rank():
    """Both click 10 % at rank 1 and 2 % at rank 2; B shows rank 2 more often, and a third rank."""
    found = by_rank({"A": counts([1000, 500, 0], [100, 10, 0]), "B": counts([1000, 1000, 1000], [100, 20, 5])})
    assert found.ctr == {"A": (0.1, 0.02, None), "B": (0.1, 0.02, 0.005)}
    expected = (0.1 * 2000 + 0.02 * 1500) / 3500
    assert found.standardised == {"A": pytest.approx(expected), "B": pytest.approx(expected)}


def test_arms_that_share_no_rank_have_no_standardised_figure():
    found = by_rank({"A": counts([10, 0], [1, 0]), "B": counts([0, 10], [0, 1])})
    assert found.standardised == {"A": None, "B": None}


def test_what_the_arms_show():
    found = lists({"A": np.array([4, 4, 4, 4, 0, 0, 0, 0]), "B": np.array([0, 90, 0, 0, 10, 0, 0, 0])}, k=2)
    assert found.arms["A"] == Shown(0.5, pytest.approx(4))
    assert found.arms["B"].coverage == 0.25
    assert found.arms["B"].effective_items == pytest.approx(0.9**-0.9 * 0.1**-0.1)
    assert found.overlap == {"B": 0.5}  # items 0 and 1 against 1 and 4


def test_an_arm_that_shows_nothing():
    found = lists({"A": np.array([1, 2]), "B": np.array([0, 0])}, k=10)
    assert found.arms["B"] == Shown(0.0, 0.0)
    assert found.overlap == {"B": 0.0}
