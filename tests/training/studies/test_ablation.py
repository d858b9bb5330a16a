import argparse
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
import torch

from syncrec.cli import main
from tests.training.studies.conftest import SMALL
from training.case_results import CaseResults, case_results
from training.config import default, paper
from training.configured import configured
from training.evaluate import Protocol
from training.studies import ablation
from training.studies.ablation import CHANGES, MIXTURES, PARTS, Row, compared, path
from training.studies.courses import add_course_arguments, course_of
from training.studies.race import Entrant, race


def settings(row):
    """The config that a row trains."""
    return configured(paper(), None, row.entrant.trials[0])


def changed(one, other):
    return {name for name, value in vars(one).items() if getattr(other, name) != value}


@pytest.mark.parametrize("row", PARTS[1:])
def test_each_part_is_left_out_by_one_setting(row):
    assert row.against == "paper"
    assert len(changed(settings(row), settings(PARTS[0]))) == 1


def test_without_lc_ntg_all_weights_are_one():
    gap = settings(PARTS[1]).gap(3)
    gap.average += torch.tensor([3.0, 0.0, -2.0])
    assert gap.weights().tolist() == [1, 1, 1]


def test_the_path_changes_one_setting_a_row_and_ends_at_the_default():
    rows = [PARTS[0], *path()]
    for before, row in pairwise(rows):
        assert row.against == before.name
        assert len(changed(settings(before), settings(row))) == (0 if row.members else 1)
    assert [row.members for row in rows[-3:]] == [members for _, members in MIXTURES]
    # But for what the race sets of every training, and the network that it tries first.
    last, first = settings(rows[-1]), default()
    tried = {"layers", "dropout", "epochs", "patience", "mixture"}
    assert changed(last, first) <= tried


def test_all_names_are_different():
    names = [row.name for row in (*PARTS, *path())]
    assert len(set(names)) == len(names) == 1 + 3 + len(CHANGES) + len(MIXTURES)


def results(ranks):
    users = len(ranks)
    cases = pl.DataFrame(
        {
            "user_id": [f"u{n}" for n in range(users)],
            "domain": pl.Series(["A"] * users, dtype=pl.Enum(["A"])),
            "place": [0] * users,
        }
    )
    return CaseResults("r", "f", Protocol(), cases, np.array(ranks, dtype=float))


def test_a_row_is_compared_with_the_one_that_it_is_against():
    entrant = Entrant("e", "paper", [("a=1",)])
    rows = [Row("first", entrant, None), Row("second", entrant, "first"), Row("third", entrant, "second", ("cross",))]
    found = compared(rows, {"first": [results([11] * 30)], "second": [results([1] * 30)], "third": [results([3] * 30)]})
    differences = {name: row["macro"]["difference"] for name, row in found["rows"].items()}
    assert differences == pytest.approx({"first": 0, "second": 1, "third": -0.5})
    assert found["rows"]["third"]["members"] == ["cross"]


@pytest.fixture(scope="module")
def few_rows():
    small = [[*ablation.SIZE, *SMALL]]

    def little(name, *words):
        return Entrant(name, "paper", [(*small[0], "experts=2", *words)])

    network = little("network", "candidates=10")
    return [Row("paper", little("paper"), None)], [
        Row("softmax", network, "paper"),
        Row("towers", network, "softmax", ablation.TOWERS),
        Row("all", network, "towers", MIXTURES[-1][1]),
    ]


def test_the_study_trains_each_network_once_and_draws(two_cuts, tmp_path, in_process, few_rows, monkeypatch):
    parts, rest = few_rows
    monkeypatch.setattr(ablation, "PARTS", parts)
    monkeypatch.setattr(ablation, "path", lambda: rest)
    work = tmp_path / "work"
    words = ["study", "ablation", two_cuts[0], "--whole", two_cuts[1], "--work", str(work), "--seeds", "2"]
    assert main([*words, "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert [command[0] for command in in_process].count("train") == 2 * (1 + 2)
    assert list(found["rows"]) == ["paper", "softmax", "towers", "all"]
    assert found["rows"]["softmax"]["seeds"] == 2
    assert (work / "ablation.png").read_bytes().startswith(b"\x89PNG")
    # CDSR alone is what the network's row tells.
    run = work / "network" / "seed-1.run"
    assert case_results(run, "test", "cross").ranks.shape == case_results(run, "test").ranks.shape
    before = len(in_process)
    assert main(words) == 0
    assert len(in_process) == before


def test_a_mixture_of_cdsr_alone_ranks_as_cdsr_does(two_cuts, tmp_path, in_process, few_rows):
    parser = argparse.ArgumentParser()
    add_course_arguments(parser)
    words = [two_cuts[0], "--whole", two_cuts[1], "--work", str(tmp_path), "--seeds", "1"]
    course, row = course_of(parser.parse_args(words)), few_rows[1][0]
    race([row.entrant], course, 1, lambda _: None)
    alone = ablation.results_of(replace(row, members=("cross",)), course)
    assert np.array_equal(alone[0].ranks, ablation.results_of(row, course)[0].ranks)
