"""`syncrec compare` on the tiny run: what its arguments may be, what it prints, what it refuses."""

import json
import shutil

import pytest

from syncrec import cli
from tests.reference.datasets import write_dataset
from training.case_results import case_results


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """Two runs of one model."""
    folder = tmp_path_factory.mktemp("compared")
    return [
        shutil.copytree(tiny_run, folder / name, ignore=shutil.ignore_patterns("cases-*"))
        for name in ("a.run", "b.run")
    ]


def compared(tmp_path, *words):
    assert cli.main(["compare", *map(str, words), "--json", str(tmp_path / "c.json")]) == 0
    return json.loads((tmp_path / "c.json").read_text())


def test_every_scorer_of_a_run_can_be_compared_with_another(runs, tmp_path, capsys):
    found = compared(tmp_path, f"{runs[0]}:popularity", runs[1], f"{runs[1]}:single")
    printed = capsys.readouterr().out
    assert found["baseline"] == "a.run:popularity"
    assert [one["other"] for one in found["comparisons"]] == ["b.run:cross", "b.run:single"]
    evaluated = [case_results(runs[0], "test", scorer) for scorer in ("popularity", "cross")]
    n = len(evaluated[0].cases)
    for one in found["comparisons"]:
        assert one["macro"]["n"] == n
        assert sum(domain["n"] for domain in one["domains"].values()) == n
    assert "mean of domains" in printed
    assert "NDCG@10" in printed
    assert "b.run:single" in printed


def test_a_run_against_itself_makes_no_difference(runs, tmp_path):
    (comparison,) = compared(tmp_path, runs[0], runs[1])["comparisons"]
    assert comparison["macro"]["difference"] == 0
    assert comparison["macro"]["verdict"] in {"not told apart", "too few users"}


def test_seeds_joined_by_plus_are_one_method_and_share_the_scorer(runs, tmp_path):
    both = f"{runs[0]}+{runs[1]}"
    found = compared(tmp_path, f"{both}:single", both, "--metric", "hr@5", "--split", "validation")
    (comparison,) = found["comparisons"]
    assert found["baseline"] == "a.run:single + b.run:single"
    assert comparison["other"] == "a.run:cross + b.run:cross"
    assert (found["metric"], found["part"]) == ("hr@5", "validation")
    assert comparison["macro"]["baseline_spread"] == comparison["macro"]["other_spread"] == 0


def test_a_folder_with_a_plus_or_colon_in_its_name_is_that_folder(runs, tmp_path):
    strange = shutil.copytree(runs[0], tmp_path / "a+b:c.run")
    found = compared(tmp_path, strange, f"{strange}:single")
    assert found["baseline"] == "a+b:c.run:cross"
    assert found["comparisons"][0]["other"] == "a+b:c.run:single"


def refusal(capsys, *words):
    code = cli.main(["compare", *map(str, words)])
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert not captured.out
    return code, captured.err


def test_what_makes_no_sense_is_refused_in_one_line(runs, tmp_path, capsys):
    assert refusal(capsys, runs[0]) == (2, "syncrec compare: name at least two runs: the first is the baseline\n")
    code, line = refusal(capsys, runs[0], runs[1], "--metric", "recall@10")
    assert (code, "unknown metric 'recall@10'" in line) == (2, True)
    code, line = refusal(capsys, runs[0], f"{runs[1]}:x")
    assert (code, "not by x" in line) == (2, True)
    code, line = refusal(capsys, runs[0], tmp_path / "away")
    assert (code, "not a run" in line) == (1, True)


def test_runs_of_different_datasets_are_refused(runs, tmp_path, capsys):
    write_dataset(tmp_path / "d", {"A": 6, "B": 6}, [[1, 7, 2, 8], [3, 9, 4]], validation=[[3], [1]], test=[[4], [2]])
    tiny = ["dim=8", "max_history=4", "experts=2", "layers=1", "epochs=1", "mixture=False"]
    settings = [word for setting in tiny for word in ("--set", setting)]
    assert cli.main(["train", str(tmp_path / "d"), "--out", str(tmp_path / "r"), *settings]) == 0
    capsys.readouterr()
    code, line = refusal(capsys, runs[0], tmp_path / "r")
    assert code == 2
    assert "r:cross is of another dataset than a.run:cross" in line
