import json

import pytest

from syncrec.cli import main
from tests.reference.datasets import random_histories, write_dataset
from training.mixture import MIXTURE
from training.refit import config_like
from training.run import BEST, open_trained

SIZES = {"A": 12, "B": 9}
SMALL = ("dim=8", "heads=2", "layers=1", "max_history=6", "batch_windows=16", "epochs=3", "learning_rate=0.01")


def sets(*words):
    return [part for word in words for part in ("--set", word)]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """An earlier cut with validation, and the whole of the events before the test without."""
    folder = tmp_path_factory.mktemp("data")
    histories = random_histories(tuple(SIZES.values()), users=40, longest=9, seed=1)
    train, newest = [history[:-1] for history in histories], [history[-1:] for history in histories]
    earlier = write_dataset(folder / "earlier", SIZES, train, validation=newest)
    return earlier, write_dataset(folder / "later", SIZES, histories)


@pytest.mark.parametrize("preset", ["default", "sasrec-ss", "sasrec-ss-per-domain", "item-knn"])
def test_a_run_is_trained_again_as_validation_chose(datasets, tmp_path, preset):
    earlier, later = datasets
    small = [] if preset == "item-knn" else sets(*SMALL)
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["train", str(earlier.path), "--out", str(first), "--preset", preset, *small]) == 0
    assert main(["train", str(later.path), "--out", str(again), "--like", str(first), "--set", "seed=7"]) == 0
    chosen, trained = open_trained(first), open_trained(again)
    assert trained.run.config.seed == 7
    assert trained.dataset.fingerprint == later.fingerprint
    # Without validation the last epoch is kept, and it is the one that was best before.
    assert trained.notes["epoch"] == chosen.notes["epoch"]
    assert (again / MIXTURE).exists() == (preset == "default")
    if preset == "default":
        assert json.loads((again / MIXTURE).read_text()) == json.loads((first / MIXTURE).read_text())


def test_without_validation_events_and_without_a_run_to_follow_nothing_is_trained(datasets, tmp_path, capsys):
    _, later = datasets
    assert main(["train", str(later.path), "--out", str(tmp_path / "run"), *sets(*SMALL)]) == 1
    assert "--like" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_checkpoint_chose_nothing(datasets, tmp_path, capsys):
    earlier, later = datasets
    first = tmp_path / "first"
    assert main(["train", str(earlier.path), "--out", str(first), "--preset", "sasrec-ss", *sets(*SMALL)]) == 0
    (first / BEST).unlink()
    assert main(["train", str(later.path), "--out", str(tmp_path / "again"), "--like", str(first)]) == 1
    assert BEST in capsys.readouterr().err


def test_epochs_are_those_of_the_best_checkpoint(datasets, tmp_path):
    earlier, _ = datasets
    first = tmp_path / "first"
    main(["train", str(earlier.path), "--out", str(first), "--preset", "sasrec-ss", *sets(*SMALL)])
    assert config_like(first).epochs == open_trained(first).notes["epoch"]


def test_a_mixture_that_nothing_could_choose_is_refused_before_training(datasets, tmp_path, capsys):
    """Not served as CDSR alone in silence."""
    earlier, later = datasets
    first, again = tmp_path / "first", tmp_path / "again"
    assert main(["train", str(earlier.path), "--out", str(first), *sets(*SMALL)]) == 0
    (first / MIXTURE).unlink()
    assert main(["train", str(later.path), "--out", str(again), "--like", str(first)]) == 1
    assert "mixture" in capsys.readouterr().err
    assert not again.exists()
    assert main(["train", str(later.path), "--out", str(again), "--like", str(first), "--set", "mixture=false"]) == 0
