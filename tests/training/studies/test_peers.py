import json
from concurrent.futures import Executor, Future

import pytest

from formats.errors import WorkFailed
from syncrec.cli import main
from tests.reference.datasets import random_histories, write_dataset
from training.run import open_trained
from training.studies import peers, race
from training.studies.race import Entrant

SIZES = {"A": 14, "B": 9}
SMALL = ("dim=8", "layers=1", "max_history=6", "batch_windows=16", "learning_rate=0.01")
ENTRANTS = (
    Entrant("default", "default", [(*SMALL, "epochs=2"), (*SMALL, "epochs=1")]),
    Entrant("sasrec-ss-per-domain", "sasrec-ss-per-domain", [(*SMALL, "epochs=1")]),
    Entrant("item-knn", "item-knn", [("damping=0.25",), ("damping=0.5",)], seeded=False),
)


class OneAfterTheOther(Executor):
    """In the main thread, where training may listen to Ctrl-C."""

    def __init__(self, _jobs):
        pass

    def submit(self, function, *arguments):
        done = Future()
        try:
            done.set_result(function(*arguments))
        except WorkFailed as error:
            done.set_exception(error)
        return done


@pytest.fixture
def called(monkeypatch):
    """Commands run in this process, which is faster; their first words are kept."""
    words = []

    def run(_runner, *command):
        words.append(command)
        if main(list(command)):
            raise WorkFailed(f"syncrec {' '.join(command)}: failed")

    monkeypatch.setattr(race._Runner, "_command", run)
    monkeypatch.setattr(race, "ThreadPoolExecutor", OneAfterTheOther)
    monkeypatch.setattr(peers, "ENTRANTS", ENTRANTS)
    return words


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    histories = random_histories(tuple(SIZES.values()), users=60, longest=9, seed=1)
    older, newer, newest = ([h[:-2] for h in histories], [h[-2:-1] for h in histories], [h[-1:] for h in histories])
    earlier = write_dataset(folder / "earlier", SIZES, older, validation=newer, test=newest)
    whole = write_dataset(folder / "whole", SIZES, [h[:-1] for h in histories], test=newest)
    return str(earlier.path), str(whole.path)


def study(datasets, work, *more):
    words = [
        "study",
        "peers",
        datasets[0],
        "--whole",
        datasets[1],
        "--work",
        str(work),
        "--trials",
        "2",
        "--seeds",
        "2",
    ]
    return main([*words, "--minutes", "1", *more])


def test_every_method_is_tuned_tested_and_compared_and_nothing_is_done_twice(datasets, tmp_path, called, capsys):
    work, found = tmp_path / "work", tmp_path / "found.json"
    assert study(datasets, work, "--json", str(found)) == 0
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
    assert study(datasets, work) == 0
    assert called == []


def test_what_was_stopped_goes_on(datasets, tmp_path, called, monkeypatch):
    work = tmp_path / "work"
    assert study(datasets, work, "--only", "item-knn") == 0
    done = len(called)
    (work / "item-knn" / "seed-1.run" / "cases-test.parquet").unlink()
    (work / "item-knn" / "trial-1.run" / "finished").unlink()
    assert study(datasets, work, "--only", "item-knn") == 0
    assert [command[0] for command in called[done:]] == ["train", "evaluate"]


def test_a_piece_that_fails_is_named_and_the_others_stay(datasets, tmp_path, called, capsys, monkeypatch):
    broken = (ENTRANTS[2], Entrant("broken", "item-knn", [("damping=-1",)], seeded=False))
    monkeypatch.setattr(peers, "ENTRANTS", broken)
    assert study(datasets, tmp_path / "work") == 1
    assert "broken" in capsys.readouterr().err
    assert (tmp_path / "work" / "item-knn" / "seed-1.run" / "cases-test.parquet").exists()


def test_an_unknown_method_is_named(datasets, tmp_path, called, capsys):
    assert study(datasets, tmp_path / "work", "--only", "item-knm") == 2
    assert "item-knm" in capsys.readouterr().err
