"""What holds for every baseline: it trains, evaluates, resumes to the bit, and two processes do as one."""

import json
import signal
from dataclasses import replace

import pytest

from syncrec import cli
from tests.reference.datasets import random_histories, write_dataset
from training.baselines.config import BaselineConfig
from training.methods import METHODS, PRESETS, method_of
from training.processes import Processes
from training.trainings import training_of

SIZES = {"Books": 7, "Games": 8, "Toys": 6}
BASELINES = [name for name in sorted(PRESETS) if isinstance(PRESETS[name](), BaselineConfig)]
WORDS = [
    "dim=8",
    "layers=1",
    "max_history=4",
    "batch_windows=8",
    "epochs=2",
    "learning_rate=0.01",
    "validation_cases=30",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """20 users; with WORDS four steps an epoch of all domains."""
    histories = random_histories(tuple(SIZES.values()), users=20, longest=9, seed=7)
    return write_dataset(
        tmp_path_factory.mktemp("baselines") / "small.dataset",
        SIZES,
        histories,
        validation=[[1 + user] for user in range(20)],
        test=[[1 + user] for user in range(20)],
    )


def config_of(preset):
    return replace(
        PRESETS[preset](), dim=8, layers=1, max_history=4, batch_windows=8, epochs=2, learning_rate=0.01,
        attention_dropout=0.1, validation_cases=30,
    )  # fmt: skip


def training(dataset, path, config, report=lambda _: None):
    path.mkdir(exist_ok=True)
    return training_of(dataset, config, path, Processes(), report)


def files(path):
    """Every file of a run, those of its parts included."""
    return {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def after_steps(count):
    """A report that interrupts after so many steps."""
    steps = 0

    def report(now):
        nonlocal steps
        steps += now.score is None
        if now.score is None and steps == count:
            signal.raise_signal(signal.SIGINT)

    return report


@pytest.fixture(scope="module", params=BASELINES)
def whole(request, dataset, tmp_path_factory):
    """The config and folder of an uninterrupted run."""
    config, path = config_of(request.param), tmp_path_factory.mktemp("whole") / "a.run"
    training(dataset, path, config).train()
    return config, path


@pytest.mark.parametrize("steps", [1, 4, 6])
def test_interrupted_and_resumed_the_run_is_the_same_to_the_bit(dataset, whole, tmp_path, steps):
    config, path = whole
    with pytest.raises(KeyboardInterrupt):
        training(dataset, tmp_path / "a.run", config, after_steps(steps)).train()
    again = training(dataset, tmp_path / "a.run", config)
    again.resume()
    again.train()
    assert files(tmp_path / "a.run") == files(path)


def test_another_seed_gives_another_run(dataset, whole, tmp_path):
    config, path = whole
    training(dataset, tmp_path / "a.run", replace(config, seed=1)).train()
    assert files(tmp_path / "a.run") != files(path)


@pytest.mark.parametrize("preset", BASELINES)
def test_the_commands_train_evaluate_and_keep_what_is_there(dataset, tmp_path, capsys, preset):
    run = tmp_path / "a.run"
    settings = [part for word in WORDS for part in ("--set", word)]
    command = ["train", str(dataset.path), "--out", str(run), "--preset", preset, *settings]
    assert cli.main(command) == 0
    assert "best, validation NDCG@10" in capsys.readouterr().out
    assert any(run.rglob("training.png"))
    before = files(run)
    assert cli.main(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert files(run) == before
    assert cli.main(["evaluate", str(run), "--json", str(tmp_path / "e.json")]) == 0
    assert "popularity" in capsys.readouterr().out
    result = json.loads((tmp_path / "e.json").read_text())
    (name,) = {"cross", "single"} & set(result["overall"])
    assert 0 <= result["overall"][name]["ndcg@10"] <= 1
    assert cli.main(["export", str(run), "--out", str(tmp_path / "models")]) == 1
    assert "only SyNCRec is exported" in capsys.readouterr().err


def test_every_method_has_a_preset():
    assert {method_of(preset()) for preset in PRESETS.values()} == set(METHODS)
