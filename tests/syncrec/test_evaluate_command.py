"""`syncrec evaluate`: what it leaves in the run, what it prints."""

import json
import shutil

import polars as pl
import pytest

from syncrec import cli
from training.run import EVALUATION

CASES = "cases-test.parquet"


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "r", ignore=shutil.ignore_patterns("cases-*", EVALUATION))


def evaluated(run, *words):
    assert cli.main(["evaluate", str(run), *words, "--json", str(run / "e.json")]) == 0
    return json.loads((run / "e.json").read_text())


def test_every_case_is_kept_and_the_result_for_export(run, capsys):
    result = evaluated(run)
    table = pl.read_parquet(run / CASES)
    assert len(table) == result["overall"]["n"]
    assert {f"rank_{scorer}" for scorer in result["macro"]} <= set(table.columns)
    assert (table["rank_cross"] <= 10).mean() == pytest.approx(result["overall"]["cross"]["hr@10"])
    assert json.loads((run / EVALUATION).read_text()) == result
    assert not list(run.glob(".*"))
    printed = capsys.readouterr().out
    for words in ("NDCG@10", "negative transfer", "coverage", "events in the domain before", "mean of domains"):
        assert words in printed


@pytest.mark.parametrize(
    "words", [["--max-cases", "3"], ["--seen", "exclude"], ["--split", "validation"], ["--ranking", "catalogue"]]
)
def test_what_is_exported_is_the_default_evaluation_alone(run, words):
    result = evaluated(run, *words)
    assert not (run / EVALUATION).exists()
    assert len(pl.read_parquet(run / f"cases-{result['part']}.parquet")) == result["overall"]["n"]


def test_ranking_among_all_items_is_on_a_draw_unless_told(run, capsys, monkeypatch):
    monkeypatch.setattr("syncrec.evaluate.CATALOGUE_CASES", 5)
    drawn, told = evaluated(run, "--ranking", "catalogue"), evaluated(run, "--ranking", "catalogue", "--max-cases", "8")
    assert max(table["n"] for table in drawn["domains"].values()) == 5
    assert max(table["n"] for table in told["domains"].values()) == 8
    printed = capsys.readouterr().out
    assert "among the items of all domains" in printed
    assert "at most 5 events per domain" in printed
    assert "coverage" not in printed


def test_drawn_candidates_are_a_further_column(run, capsys):
    result = evaluated(run, "--sampled", "7")
    printed = capsys.readouterr().out
    assert "HR@10, 1+7" in printed
    assert result["as_published"]["candidates"] == 7
    assert f"{result['as_published']['macro']['cross']['ndcg@10']:.4f}" in printed


@pytest.mark.parametrize("option", ["--max-cases", "--sampled"])
def test_less_than_one_is_refused(run, option, capsys):
    assert cli.main(["evaluate", str(run), option, "0"]) == 2
    assert f"{option}: must be at least 1" in capsys.readouterr().err
