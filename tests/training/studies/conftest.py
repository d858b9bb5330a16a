"""What the studies that train share: two small datasets, and races that run in this process, which is faster."""

from concurrent.futures import Executor, Future

import pytest

SIZES = {"A": 14, "B": 9}
SMALL = ("dim=8", "heads=1", "layers=1", "max_history=6", "batch_windows=16", "learning_rate=0.01", "epochs=1")


class OneAfterTheOther(Executor):
    """In the main thread, where training may listen to Ctrl-C."""

    def __init__(self, _jobs):
        pass

    def submit(self, function, *arguments):
        done = Future()
        done.set_result(function(*arguments))
        return done


@pytest.fixture
def in_process(monkeypatch):
    """The commands of a race run here; what they were is kept."""
    from formats.errors import WorkFailed
    from syncrec.cli import main
    from training.studies import race

    words = []

    def run(_runner, *command):
        words.append(command)
        if main(list(command)):
            raise WorkFailed(f"syncrec {' '.join(command)}: failed")

    monkeypatch.setattr(race._Runner, "_command", run)
    monkeypatch.setattr(race, "ThreadPoolExecutor", OneAfterTheOther)
    return words


@pytest.fixture(scope="session")
def two_cuts(tmp_path_factory):
    """A dataset with a validation part, and the same events without one."""
    from tests.reference.datasets import random_histories, write_dataset

    folder = tmp_path_factory.mktemp("cuts")
    histories = random_histories(tuple(SIZES.values()), users=60, longest=9, seed=1)
    older, newer, newest = ([h[:-2] for h in histories], [h[-2:-1] for h in histories], [h[-1:] for h in histories])
    earlier = write_dataset(folder / "earlier", SIZES, older, validation=newer, test=newest)
    whole = write_dataset(folder / "whole", SIZES, [h[:-1] for h in histories], test=newest)
    return str(earlier.path), str(whole.path)
