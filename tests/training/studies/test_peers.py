import json

import pytest

from syncrec.cli import main
from training.run import open_trained
from training.studies import peers
from training.studies.race import Entrant

SMALL = ("dim=8", "layers=1", "max_history=6", "batch_windows=16", "learning_rate=0.01")
ENTRANTS = (
    Entrant("default", "default", [(*SMALL, "epochs=2"), (*SMALL, "epochs=1")]),
    Entrant("sasrec-ss-per-domain", "sasrec-ss-per-domain", [(*SMALL, "epochs=1")]),
    Entrant("item-knn", "item-knn", [("damping=0.25",), ("damping=0.5",)], seeded=False),
)


@pytest.fixture
def called(in_process, monkeypatch):
    """The commands of the race."""
    monkeypatch.setattr(peers, "ENTRANTS", ENTRANTS)
    return in_process


def study(two_cuts, work, *more):
    words = [
        "study",
        "peers",
        two_cuts[0],
        "--whole",
        two_cuts[1],
        "--work",
        str(work),
        "--trials",
        "2",
        "--seeds",
        "2",
    ]
    return main([*words, "--minutes", "1", *more])


def test_every_method_is_tuned_tested_and_compared_and_nothing_is_done_twice(two_cuts, tmp_path, called, capsys):
    work, found = tmp_path / "work", tmp_path / "found.json"
    assert study(two_cuts, work, "--json", str(found)) == 0
    content = json.loads(found.read_text())
    assert json.loads((work / "results.json").read_text())["methods"] == content["methods"]
    assert list(content["methods"]) == ["default", "sasrec-ss-per-domain", "item-knn", "two single models"]
    assert [content["methods"][name]["seeds"] for name in content["methods"]] == [2, 2, 1, 1]
    assert content["methods"]["default"]["macro"]["difference"] == 0
    assert content["methods"]["item-knn"]["macro"]["baseline_spread"] is None
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert [line["run"] for line in log if line["run"].startswith("default")] == [
        "default/trial-0.run", "default/trial-1.run", "default/seed-1.run", "default/seed-2.run",
    ]  # fmt: skip
    trials = {line["run"]: line["validation_ndcg_at_10"] for line in log if "trial" in line["run"]}
    chosen = content["methods"]["default"]["chosen"]
    assert trials[f"default/trial-{chosen['trial']}.run"] == max(
        trials["default/trial-0.run"], trials["default/trial-1.run"]
    )
    assert open_trained(work / "default" / "seed-2.run").run.config.seed == 2
    assert "two single models" in capsys.readouterr().out
    called.clear()
    assert study(two_cuts, work) == 0
    assert called == []


def test_what_was_stopped_goes_on(two_cuts, tmp_path, called, monkeypatch):
    work = tmp_path / "work"
    assert study(two_cuts, work, "--only", "item-knn") == 0
    done = len(called)
    (work / "item-knn" / "seed-1.run" / "cases-test.parquet").unlink()
    (work / "item-knn" / "trial-1.run" / "finished").unlink()
    assert study(two_cuts, work, "--only", "item-knn") == 0
    assert [command[0] for command in called[done:]] == ["train", "evaluate"]


def test_a_piece_that_fails_is_named_and_the_others_stay(two_cuts, tmp_path, called, capsys, monkeypatch):
    broken = (ENTRANTS[2], Entrant("broken", "item-knn", [("damping=-1",)], seeded=False))
    monkeypatch.setattr(peers, "ENTRANTS", broken)
    assert study(two_cuts, tmp_path / "work") == 1
    assert "broken" in capsys.readouterr().err
    assert (tmp_path / "work" / "item-knn" / "seed-1.run" / "cases-test.parquet").exists()


def test_a_run_that_was_stopped_before_its_test_does_not_count_yet(two_cuts, tmp_path, called):
    work, found = tmp_path / "work", tmp_path / "found.json"
    assert study(two_cuts, work, "--only", "default,item-knn") == 0
    (work / "item-knn" / "seed-1.run" / "cases-test.parquet").unlink()
    assert study(two_cuts, work, "--only", "default", "--json", str(found)) == 0
    assert list(json.loads(found.read_text())["methods"]) == ["default"]


def test_an_unknown_method_is_named(two_cuts, tmp_path, called, capsys):
    assert study(two_cuts, tmp_path / "work", "--only", "item-knm") == 2
    assert "item-knm" in capsys.readouterr().err
