"""`syncrec study`: dispatch, what is printed and written, exit codes."""

import json
import sys

import numpy as np
import pytest

from syncrec import cli
from syncrec.study import STUDIES
from training.studies.outcome import Outcome, StudyTable


def test_the_audit_of_an_honest_run_passes(tiny_run, tmp_path, capsys):
    assert cli.main(["study", "audit", str(tiny_run), "--json", str(tmp_path / "a.json")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["study"] == "audit"
    assert found["failed"] == []
    assert len(found["audits"]) == 7
    for audit in found["audits"]:
        assert audit["passed"]
        assert audit["value"] <= audit["bound"]
        assert audit["name"] in printed
    assert "FAIL" not in printed


def test_a_failed_question_is_printed_written_and_exits_1(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.audit.rank_cases", lambda cases, *_: np.ones(len(cases)))
    assert cli.main(["study", "audit", str(tiny_run), "--json", str(tmp_path / "a.json")]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("syncrec study: audit: failed: ")
    assert captured.err.count("\n") == 1
    assert "equal scores" in captured.err
    assert "FAIL" in captured.out
    assert "equal scores" in json.loads((tmp_path / "a.json").read_text())["failed"]


@pytest.mark.parametrize(
    "words", [["study"], ["study", "x"], ["study", "audit"], ["study", "audit", "RUN", "--max-cases", "0"]]
)
def test_what_cannot_be_meant_is_one_line(words, capsys):
    try:
        code = cli.main(words)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_help_names_every_study_and_loads_none(capsys):
    sys.modules.pop("training.audit", None)
    with pytest.raises(SystemExit):
        cli.main(["study", "--help"])
    printed = capsys.readouterr().out
    for name, (_, line) in STUDIES.items():
        assert name in printed
        assert line in printed
    assert "training.audit" not in sys.modules


def test_a_study_has_its_own_help_and_arguments(capsys):
    with pytest.raises(SystemExit):
        cli.main(["study", "audit", "--help"])
    assert "--max-cases" in capsys.readouterr().out


def test_tables_stand_under_their_titles_and_json_alone_on_standard_output(capsys, monkeypatch):
    class Study:
        @staticmethod
        def add_arguments(parser):
            parser.add_argument("--number", type=int)

        @staticmethod
        def run(arguments):
            tables = [StudyTable("first", ["a"], [["x"]]), StudyTable("second", ["b"], [["y"]])]
            return Outcome(tables, {"number": arguments.number})

    monkeypatch.setitem(sys.modules, "tests.made_up_study", Study)
    monkeypatch.setitem(STUDIES, "made-up", ("tests.made_up_study", "nothing"))
    assert cli.main(["study", "made-up", "--number", "3"]) == 0
    assert capsys.readouterr().out == "first\n\na\nx\n\nsecond\n\nb\ny\n"
    assert cli.main(["study", "made-up", "--number", "3", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == {"study": "made-up", "number": 3, "failed": []}
