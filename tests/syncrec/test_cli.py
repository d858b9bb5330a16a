"""Exit codes, help and one-line errors of the command."""

import pytest

from formats.errors import WorkFailed, WrongUse
from syncrec import cli


@pytest.mark.parametrize("command", sorted(cli.COMMANDS))
def test_every_command_explains_itself_with_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert f"  syncrec {command}" in out, "an example line"
    assert "--debug" in out


def test_without_a_command_the_overview_is_shown_and_it_counts_as_wrong_use(capsys):
    assert cli.main([]) == 2
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)


def test_an_unknown_command_names_the_known_ones(capsys):
    assert cli.main(["recommned"]) == 2
    assert "unknown command 'recommned'; known: demo, prepare" in capsys.readouterr().err


def test_a_missing_argument_is_wrong_use(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["prepare"])
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert "--out" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WorkFailed("disk full"), 1),
        (WrongUse("k: must be at least 1"), 2),
        (FileNotFoundError(2, "No such file", "x.csv"), 1),
    ],
)
def test_a_failure_is_one_line_without_a_traceback(error, code, monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_command", lambda *_: (_ for _ in ()).throw(error))
    assert cli.main(["prepare", "x.csv", "--out", "y"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("syncrec prepare: ")
    assert captured.err.count("\n") == 1


def test_debug_shows_the_traceback(monkeypatch, capsys):
    monkeypatch.setattr(cli, "run_command", lambda *_: (_ for _ in ()).throw(WorkFailed("disk full")))
    assert cli.main(["prepare", "x.csv", "--out", "y", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr(
        cli.importlib, "import_module", lambda *_: (_ for _ in ()).throw(ModuleNotFoundError(name="torch"))
    )
    assert cli.main(["train", "dataset", "--out", "run"]) == 1
    assert "pip install 'syncrec[train,cpu]'" in capsys.readouterr().err
