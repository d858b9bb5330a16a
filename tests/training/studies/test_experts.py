import json

import numpy as np
import pytest

from formats.errors import WrongUse
from syncrec.cli import main
from tests.training.studies.conftest import SMALL
from training.studies import experts
from training.studies.experts import asked, estimate


def test_the_nearest_split_with_an_expert_for_each_task_is_taken():
    assert asked("10", "0.1,0.5,0.9") == [(10, 1), (10, 5), (10, 9)]
    assert asked("3,2", "0.1,0.9") == [(2, 1), (3, 1), (3, 2)]


@pytest.mark.parametrize("words", [("a", "0.2"), ("1", "0.2"), ("5", "0"), ("5", "1"), ("5", ""), ("2.5", "0.2")])
def test_what_is_no_split_is_refused(words):
    with pytest.raises(WrongUse, match="--experts"):
        asked(*words)


def test_the_interval_over_seeds_is_students():
    found = estimate(np.array([1.0, 2.0, 3.0]))
    # t of two degrees of freedom at 97.5 % is 4.3027.
    assert found == pytest.approx({"mean": 2, "low": 2 - 4.3027 / 3**0.5, "high": 2 + 4.3027 / 3**0.5}, abs=1e-4)
    assert estimate(np.array([0.5])) == {"mean": 0.5, "low": None, "high": None}


def test_the_study_measures_both_tasks_and_the_cost_of_every_split(two_cuts, tmp_path, in_process, monkeypatch):
    monkeypatch.setattr(experts, "NETWORKS", [SMALL])
    words = ["study", "experts", two_cuts[0], "--whole", two_cuts[1], "--work", str(tmp_path / "w"), "--seeds", "2"]
    more = ["--experts", "2,4", "--shares", "0.25,0.5", "--rounds", "2", "--json", str(tmp_path / "e.json")]
    assert main([*words, *more]) == 0
    points = json.loads((tmp_path / "e.json").read_text())["points"]
    assert [(point["experts"], point["single_experts"]) for point in points] == [(2, 1), (4, 1), (4, 2)]
    for point in points:
        assert (
            0 <= point["cross"]["low"] <= point["cross"]["mean"] <= point["cross"]["high"] or point["cross"]["mean"] > 0
        )
        assert 0 < point["single"]["mean"] < 1
    assert points[0]["relative_cost"] == {"median": 1, "low": 1, "high": 1}
    assert (tmp_path / "w" / "experts.png").read_bytes().startswith(b"\x89PNG")
    trained = [command for command in in_process if command[0] == "train"]
    assert len(trained) == 3 * (1 + 2)


def test_too_few_seeds_are_refused(two_cuts, tmp_path, capsys):
    words = ["study", "experts", two_cuts[0], "--whole", two_cuts[1], "--work", str(tmp_path), "--seeds", "0"]
    assert main(words) == 2
    assert "--seeds: must be at least 1" in capsys.readouterr().err
