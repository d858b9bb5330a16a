"""Shared fixtures: a small dataset on disk, a short run on it, and the bundle of that run.

Imports stand inside, so that tests of the service start without torch.
"""

import os

# Tensors here are tiny: threads only wait for each other. Before anything imports torch, and for subprocesses too.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest

DOMAINS = {"Books": 120, "Games": 14, "Toys": 6}


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory):
    """60 users, three domains (one smaller than 10, one larger than 100), every kind of test case."""
    from tests.reference.datasets import by_popularity, random_histories, write_dataset

    sizes = tuple(DOMAINS.values())
    # The first 20 users read through the whole of Books, six each, so that every item is in training.
    whole = [list(range(1 + 6 * user, 7 + 6 * user)) for user in range(20)]
    rest = random_histories(sizes, users=60, longest=14, seed=1, most_of_domain=0.5)
    games = [[121 + user % 14, 135 + user % 6] for user in range(60)]
    histories = [(whole[user] if user < 20 else []) + games[user] + rest[user] for user in range(60)]
    histories = by_popularity(histories, sizes)
    test = [[row[-1]] for row in histories]
    validation = [[row[-2]] if len(row) > 3 else [] for row in histories]
    return write_dataset(
        tmp_path_factory.mktemp("datasets") / "tiny.dataset",
        DOMAINS,
        train=histories,
        # Popular items once more; an unknown target; a user whom training does not know, and what they do next.
        validation=[*validation, [3]],
        test=[*test[:-1], [(0, 1), 2], [130], [(0, 2), 5, 122]],
    )


@pytest.fixture(scope="session")
def tiny_config():
    """A network that trains in seconds."""
    from training.config import TrainingConfig

    return TrainingConfig(
        dim=8,
        max_history=6,
        experts=3,
        batch_windows=24,
        epochs=2,
        learning_rate=0.01,
        validation_cases=60,
        mixture=False,
    )


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_dataset, tiny_config):
    """The folder of a finished run."""
    from training.loop import Training
    from training.processes import Processes
    from training.run import write_run

    path = tmp_path_factory.mktemp("runs") / "tiny.run"
    path.mkdir()
    write_run(path, tiny_config, tiny_dataset)
    Training(tiny_dataset, tiny_config, path, Processes(), lambda _: None).train()
    return path


@pytest.fixture(scope="session")
def tiny_trained(tiny_run):
    """The run, opened."""
    from training.run import open_trained

    return open_trained(tiny_run)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory, tiny_trained):
    """The exported bundle of the run; do not change its files."""
    from training.evaluate import Protocol, evaluate
    from training.export import export

    return export(tiny_trained, evaluate(tiny_trained, Protocol()), tmp_path_factory.mktemp("models"))
