"""Two processes train a baseline as one does."""

from dataclasses import replace

import pytest

from tests.reference.datasets import random_histories, write_dataset
from tests.reference.two_ranks import train_here
from tests.training.test_processes import same_run, start
from training.methods import PRESETS, to_json
from training.processes import Processes

# Each way in which processes must agree on more than a sum of losses, and the plain sum.
NAMES = ["sasrec", "sasrec-famo", "sasrec-pcgrad", "sasrec-shapley"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder with a run of each by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    histories = random_histories((7, 8), users=12, longest=7, seed=4)
    histories += [[1, 8, 2, 9, 3, 10, 1, 8, 2, 9, 3, 10, 4, 11, 1, 2, 8, 9], [16, 17, 1]]
    path = folder / "small.dataset"
    write_dataset(path, {"A": 7, "B": 8, "C": 5}, histories, validation=[[2], [9], [3]])

    def job(name, suffix):
        config = replace(
            PRESETS[name](), dim=8, layers=1, dropout=0.0, max_history=3, batch_windows=5, epochs=1, learning_rate=0.01
        )
        run = folder / f"{name}.{suffix}"
        run.mkdir()
        return {"dataset": str(path), "run": str(run), "config": to_json(config)}

    for name in NAMES:
        assert train_here(job(name, "one"), Processes()) == "finished"
    ends = start([job(name, "two") for name in NAMES], folder, ranks=2)
    assert ends == [["finished"] * len(NAMES)] * 2
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(runs, name):
    log = same_run(runs / f"{name}.one", runs / f"{name}.two")
    assert len(log) > 3
