"""`syncrec train` and `syncrec evaluate`: what they refuse, in one line and with nothing left behind."""

import pytest

from syncrec import cli
from tests.reference.datasets import write_dataset
from training.run import LAST, LOG

SIZES = {"A": 6, "B": 6}
HISTORIES = [[1, 7, 2, 8], [3, 9, 4], [5, 10, 6, 11]]
TINY = ["--set", "dim=8", "--set", "max_history=4", "--set", "experts=2", "--set", "layers=1", "--set", "epochs=1"]


@pytest.fixture
def dataset(tmp_path):
    write_dataset(tmp_path / "d", SIZES, HISTORIES, validation=[[3], [1], [2]], test=[[4], [2], [1]])
    return tmp_path / "d"


def refusal(capsys, *words):
    code = cli.main([str(word) for word in words])
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    return code, captured.err


@pytest.mark.parametrize("setting", ["seed=-1", "epochs=0", "dim=7", "learning_rate=-1", "eopchs=3"])
def test_a_setting_that_cannot_be_meant_leaves_no_run(dataset, tmp_path, capsys, setting):
    code, line = refusal(capsys, "train", dataset, "--out", tmp_path / "r", "--set", setting)
    assert code == 2
    assert setting.split("=")[0] in line or "epochs" in line or "heads" in line
    assert not (tmp_path / "r").exists()


def test_a_dataset_without_validation_events_is_refused(tmp_path, capsys):
    write_dataset(tmp_path / "d", SIZES, HISTORIES)
    code, line = refusal(capsys, "train", tmp_path / "d", "--out", tmp_path / "r")
    assert code == 1
    assert "no validation events" in line
    assert not (tmp_path / "r").exists()


def test_an_output_with_something_else_in_it_is_refused_and_left_alone(dataset, tmp_path, capsys):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("keep")
    code, _ = refusal(capsys, "train", dataset, "--out", tmp_path / "r")
    assert code == 2
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["mine.txt"]


def test_a_run_is_trained_once_and_a_second_time_only_on_request(dataset, tmp_path, capsys):
    assert cli.main(["train", str(dataset), "--out", str(tmp_path / "r"), *TINY]) == 0
    before = (tmp_path / "r" / LAST).read_bytes()
    capsys.readouterr()
    code, line = refusal(capsys, "train", dataset, "--out", tmp_path / "r", *TINY)
    assert code == 2
    assert "--resume" in line
    assert cli.main(["train", str(dataset), "--out", str(tmp_path / "r"), "--resume"]) == 0
    assert (tmp_path / "r" / LAST).read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_can_be_started_again(dataset, tmp_path):
    assert cli.main(["train", str(dataset), "--out", str(tmp_path / "r"), *TINY]) == 0
    wanted = (tmp_path / "r" / LAST).read_bytes(), (tmp_path / "r" / LOG).read_bytes()
    (tmp_path / "r" / LAST).unlink()
    assert cli.main(["train", str(dataset), "--out", str(tmp_path / "r"), *TINY]) == 0
    assert ((tmp_path / "r" / LAST).read_bytes(), (tmp_path / "r" / LOG).read_bytes()) == wanted


@pytest.mark.parametrize("option", ["--max-cases", "--sampled"])
def test_an_evaluation_of_nothing_is_wrong_use(dataset, tmp_path, capsys, option):
    assert refusal(capsys, "evaluate", tmp_path / "r", option, "0")[0] == 2
