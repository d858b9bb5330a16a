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


@pytest.fixture(scope="session")
def tiny_timed_dataset(tmp_path_factory, tiny_dataset):
    """The same events, but over three months instead of within one second: training, then validation, then test."""
    import shutil

    import numpy as np

    from training.dataset import open_dataset

    path = shutil.copytree(tiny_dataset.path, tmp_path_factory.mktemp("datasets") / "timed.dataset")
    random = np.random.default_rng(0)
    for part, (first, last) in {"train": (0, 60), "validation": (60, 75), "test": (75, 90)}.items():
        offsets = np.load(path / part / "user_offsets.npy")
        hours = random.integers(24 * first, 24 * last, offsets[-1])
        of_user = [np.sort(own) for own in np.split(hours, offsets[1:-1])]
        np.save(path / part / "timestamp.npy", np.concatenate(of_user) * 3600 * 10**6 + 20_000 * 86_400 * 10**6)
    return open_dataset(path)


@pytest.fixture(scope="session")
def tiny_weights():
    """A mixture in which every member has a weight somewhere and none has one everywhere."""
    from training.members import NAMES

    given = {
        "Books": {"cross": 0.25, "single": 0.125, "recent_4d": 0.25, "neighbours": 0.25, "own_neighbours": 0.125},
        "Games": {"cross": 0.5, "recent_14d": 0.25, "recent_60d": 0.25},
        "Toys": {"single": 0.5, "own_neighbours": 0.5},
    }
    return [{name: weights.get(name, 0.0) for name in NAMES} for weights in given.values()]


@pytest.fixture(scope="session")
def mixed_run(tmp_path_factory, tiny_run, tiny_config, tiny_timed_dataset):
    """Makes a run with the tiny run's network that serves a mixture of these weights."""
    import shutil
    from dataclasses import replace

    from training.mixture import write_mixture
    from training.run import BEST, write_run

    def make(weights):
        path = tmp_path_factory.mktemp("runs") / "mixed.run"
        path.mkdir()
        write_run(path, replace(tiny_config, mixture=True), tiny_timed_dataset)
        shutil.copyfile(tiny_run / BEST, path / BEST)
        write_mixture(path, tiny_timed_dataset.domains, weights)
        return path

    return make


@pytest.fixture(scope="session")
def tiny_mixed_trained(mixed_run, tiny_weights):
    """A run that serves a mixture, opened."""
    from training.run import open_trained

    return open_trained(mixed_run(tiny_weights))


@pytest.fixture(scope="session")
def tiny_mixed_bundle(tmp_path_factory, tiny_mixed_trained):
    """Its bundle; do not change its files."""
    from training.evaluate import Protocol, evaluate
    from training.export import export

    return export(tiny_mixed_trained, evaluate(tiny_mixed_trained, Protocol()), tmp_path_factory.mktemp("models"))
