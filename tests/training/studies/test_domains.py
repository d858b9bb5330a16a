import json

import numpy as np
import pytest

from syncrec.cli import main
from training.studies.stopwatch import relative


def test_times_are_relative_to_the_first_setting_in_the_same_round():
    seconds = np.array([[1.0, 2.0], [10.0, 30.0], [2.0, 4.0]])  # the machine was busy in the second round
    median, low, high = relative(seconds)
    assert median.tolist() == [1, 2]
    assert (low[0], high[0]) == (1, 1)
    assert 2 <= low[1] <= high[1] <= 3


def words(work, *more):
    quick = ["--counts", "3,6", "--rounds", "2", "--ranked", "5", "--ranked-users", "400", "--epochs", "1"]
    return ["study", "domains", "--work", str(work), *quick, *more]


def test_the_study_times_and_ranks_and_fails_where_the_ranking_does(tmp_path, capsys):
    code = main(words(tmp_path / "w", "--json", str(tmp_path / "d.json")))
    found = json.loads((tmp_path / "d.json").read_text())
    assert [one["domains"] for one in found["cost"]] == [3, 6]
    assert found["cost"][0]["relative"] == {"value": 1, "low": 1, "high": 1}
    ranking = found["ranking"]
    assert {one["kind"] for one in ranking["domains"].values()} == {
        "half-related", "noise", "related-dense", "related-sparse", "unrelated-sequential",
    }  # fmt: skip
    assert -1 <= ranking["spearman"]["oracle"] <= 1
    assert code == int(bool(found["failed"]))
    assert ("ranking" in found["failed"]) == (ranking["spearman"]["oracle"] < 0.8)
    assert (tmp_path / "w" / "domains.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("more", [["--counts", "a"], ["--counts", "0,5"], ["--rounds", "0"], ["--ranked", "2"]])
def test_what_cannot_be_meant_is_refused(tmp_path, more, capsys):
    assert main(words(tmp_path, *more)) == 2
    assert more[0] in capsys.readouterr().err
