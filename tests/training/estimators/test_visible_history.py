"""Shapley values of histories, of a model whose costs are known."""

import numpy as np
import pytest

from tests.reference.datasets import write_dataset
from training.cases import contexts
from training.estimators.visible_history import contributions

# Items 1 and 2 are of A, 3 and 4 of B, 5 of C.
SIZES = {"A": 2, "B": 2, "C": 1}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visible") / "d"
    dataset = write_dataset(folder, SIZES, [[1, 3, 3, 5, 2]] * 3, test=[[1], [4], [5]])
    return contexts(dataset, "test")


def test_each_event_of_b_helps_a_and_one_of_c_hurts_b(cases):
    def costs(some):
        found = np.full(len(some), 9.0)
        for number, history in enumerate(some.histories()):
            if some.target_domain[number] == 1:
                found[number] -= 0.5 * np.isin(history, (3, 4)).sum()
            if some.target_domain[number] == 2:
                found[number] += 0.25 * (history == 5).sum()
        return found

    worth = contributions(costs, cases, 3).numpy()
    wanted = np.zeros((3, 3))
    wanted[1, 0], wanted[2, 1] = 1.0, -0.25
    assert worth == pytest.approx(wanted)


def test_two_that_are_needed_together_share_what_they_bring(cases):
    def costs(some):
        both = [bool(set(history) & {3, 4}) and 5 in history for history in some.histories()]
        return np.where(np.array(both) & (some.target_domain == 1), 3.0, 4.0)

    assert contributions(costs, cases, 3).numpy()[:, 0] == pytest.approx([0, 0.5, 0.5])
