"""The mixture through the commands: `syncrec train` chooses it, the others need it."""

import json
import shutil

import pytest

from syncrec import cli
from syncrec.export import _evaluation
from tests.reference.datasets import write_dataset
from training.mixture import MIXTURE
from training.run import BEST, EVALUATION, LAST, open_trained

SIZES = {"A": 6, "B": 6}
HISTORIES = [[1, 7, 2, 8], [3, 9, 4], [5, 10, 6, 11, 12]]
TINY = [f"--set={one}" for one in ("dim=8", "max_history=4", "experts=2", "layers=1", "epochs=1")]


def run(*words):
    return cli.main([str(word) for word in words])


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(tmp_path / "d", SIZES, HISTORIES, validation=[[3], [8], [2]], test=[[4], [2], [9]]).path


@pytest.fixture
def finished(dataset, tmp_path):
    assert run("train", dataset, "--out", tmp_path / "r", *TINY) == 0
    return tmp_path / "r"


def test_a_training_ends_with_weights_for_every_domain(finished):
    weights = json.loads((finished / MIXTURE).read_text())
    assert list(weights) == list(SIZES)
    for of_domain in weights.values():
        assert sum(of_domain.values()) == pytest.approx(1)


@pytest.mark.parametrize("words", [["evaluate"], ["export", "--out", "models"]])
def test_a_run_that_was_killed_before_its_weights_says_how_to_go_on(
    finished, dataset, tmp_path, monkeypatch, capsys, words
):
    monkeypatch.chdir(tmp_path)
    wanted, checkpoint = (finished / MIXTURE).read_bytes(), (finished / LAST).read_bytes()
    (finished / MIXTURE).unlink()
    capsys.readouterr()
    assert run(words[0], finished, *words[1:]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert MIXTURE in line
    assert "`syncrec train --resume` goes on" in line
    assert not (tmp_path / "models").exists()
    assert run("train", dataset, "--out", finished, "--resume") == 0
    assert (finished / MIXTURE).read_bytes() == wanted
    assert (finished / LAST).read_bytes() == checkpoint
    assert run("evaluate", finished) == 0
    assert json.loads((finished / EVALUATION).read_text())["served"] == "mixture"


def test_weights_are_chosen_on_a_dataset_that_was_moved(finished, dataset, tmp_path):
    wanted = (finished / MIXTURE).read_bytes()
    (finished / MIXTURE).unlink()
    moved = shutil.move(dataset, tmp_path / "elsewhere")
    assert run("train", moved, "--out", finished, "--resume") == 0
    assert (finished / MIXTURE).read_bytes() == wanted


def test_damaged_weights_are_an_error_of_one_line(finished, capsys):
    (finished / MIXTURE).write_text('{"A": {}}')
    capsys.readouterr()
    assert run("evaluate", finished) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert f"{MIXTURE}: damaged" in line


def test_weights_of_a_run_that_never_reached_a_checkpoint_are_not_taken_over(finished, dataset):
    """Such a run is started again in its folder; weights may lie there that --like had brought."""
    wanted = (finished / MIXTURE).read_bytes()
    (finished / MIXTURE).write_text(wanted.decode().replace("0.0", "0.5"))
    for file in (LAST, BEST):
        (finished / file).unlink()
    assert run("train", dataset, "--out", finished, *TINY) == 0
    assert (finished / MIXTURE).read_bytes() == wanted


def test_without_a_mixture_no_weights_are_chosen(dataset, tmp_path):
    assert run("train", dataset, "--out", tmp_path / "r", *TINY, "--set=mixture=false") == 0
    assert not (tmp_path / "r" / MIXTURE).exists()
    assert run("evaluate", tmp_path / "r") == 0
    assert json.loads((tmp_path / "r" / EVALUATION).read_text())["served"] == "cross"


@pytest.mark.parametrize(("served", "kept"), [("mixture", True), ("cross", False)])
def test_an_export_carries_the_evaluation_of_what_is_served(finished, served, kept):
    """An evaluation from before the weights is of another model, though the checkpoint is the same."""
    trained = open_trained(finished)
    marked = {"checkpoint_epoch": trained.notes["epoch"], "served": served, "mark": True}
    (finished / EVALUATION).write_text(json.dumps(marked))
    assert ("mark" in _evaluation(trained)) == kept
    assert json.loads((finished / EVALUATION).read_text())["served"] == "mixture"
