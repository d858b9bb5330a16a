import errno
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from formats.errors import WorkFailed
from tests.reference.datasets import random_histories, write_dataset
from training.checkpoint import read_checkpoint
from training.config import TrainingConfig
from training.loop import Stopped, Training
from training.processes import Processes
from training.run import BEST, LAST, LOG, open_trained, write_run

ROOT = Path(__file__).parents[2]
SIZES = {"Books": 7, "Games": 8, "Toys": 6}
CONFIG = TrainingConfig(
    dim=8, layers=1, experts=3, max_history=4, batch_windows=8, epochs=3, learning_rate=0.01, attention_dropout=0.1
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """20 users; with CONFIG four steps an epoch."""
    histories = random_histories(tuple(SIZES.values()), users=20, longest=9, seed=7)
    return write_dataset(
        tmp_path_factory.mktemp("loop") / "small.dataset",
        SIZES,
        histories,
        validation=[[1 + user] for user in range(20)],
        test=[[1 + user] for user in range(20)],
    )


def training(dataset, path, config=CONFIG, report=lambda _: None):
    path.mkdir(exist_ok=True)
    return Training(dataset, config, path, Processes(), report)


def after_steps(count, do):
    """A report that does something after so many steps."""
    steps = 0

    def report(now):
        nonlocal steps
        steps += now.score is None
        if now.score is None and steps == count:
            do()

    return report


def interrupt():
    signal.raise_signal(signal.SIGINT)


def files(path):
    return {name: (path / name).read_bytes() for name in (LAST, BEST, LOG)}


def lines(path):
    return [json.loads(line) for line in (path / LOG).read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(dataset, tmp_path_factory):
    """An uninterrupted run."""
    path = tmp_path_factory.mktemp("loop") / "whole.run"
    training(dataset, path).train()
    return path


def steps_of(path):
    return sum(line["kind"] == "step" for line in lines(path))


def test_the_run_is_long_enough_to_be_interrupted_anywhere(whole):
    assert steps_of(whole) >= 3 * 3
    assert lines(whole)[-1]["kind"] == "epoch"


@pytest.mark.parametrize("steps", range(1, 13))
def test_interrupted_after_any_step_and_resumed_the_run_is_the_same_to_the_bit(dataset, whole, tmp_path, steps):
    """Parameters, lambda, optimiser, best checkpoint, log: all files are equal byte by byte."""
    assert steps_of(whole) == 12
    path = tmp_path / "resumed.run"
    first = training(dataset, path, report=after_steps(steps, interrupt))
    if steps < 12:
        with pytest.raises(KeyboardInterrupt):
            first.train()
        assert steps_of(path) == steps
        again = training(dataset, path)
        again.resume()
        again.train()
    else:  # the last step of all: there is nothing to resume
        first.train()
    assert files(path) == files(whole)


def test_interrupted_many_times_the_run_is_the_same_to_the_bit(dataset, whole, tmp_path):
    path = tmp_path / "resumed.run"
    for turn in range(12):
        one = training(dataset, path, report=after_steps(1, interrupt))
        if turn:
            one.resume()
        try:
            one.train()
        except KeyboardInterrupt:
            continue
        break
    assert files(path) == files(whole)


def test_after_an_interrupt_ctrl_c_works_as_before(dataset, tmp_path):
    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training(dataset, tmp_path / "a.run", report=after_steps(2, interrupt)).train()
    assert signal.getsignal(signal.SIGINT) is former


def test_a_second_ctrl_c_stops_at_once(dataset, tmp_path):
    """With the checkpoint of the start; the log may end anywhere."""

    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt) as stopped:
        training(dataset, tmp_path / "a.run", report=after_steps(2, twice)).train()
    assert not isinstance(stopped.value, Stopped), "it must not be told to be saved"
    _, notes = read_checkpoint(tmp_path / "a.run" / LAST)
    assert (notes["epoch"], notes["step"]) == (1, 0)


def test_a_crash_between_checkpoints_costs_steps_but_changes_nothing(dataset, whole, tmp_path):
    """The log of the lost steps is taken back before they are taken again."""

    class CrashError(Exception):
        pass

    def crash():
        raise CrashError

    path = tmp_path / "crashed.run"
    with pytest.raises(CrashError):
        training(dataset, path, report=after_steps(7, crash)).train()
    assert steps_of(path) == 7
    with (path / LOG).open("ab") as log:
        log.write(b'{"kind": "st')  # a line that was cut short
    again = training(dataset, path)
    again.resume()
    assert steps_of(path) == 4  # of the first epoch
    again.train()
    assert files(path) == files(whole)


def test_resuming_a_finished_run_does_nothing(dataset, whole, tmp_path):
    path = tmp_path / "done.run"
    path.mkdir()
    for name, content in files(whole).items():
        (path / name).write_bytes(content)
    again = training(dataset, path)
    again.resume()
    again.train()
    assert files(path) == files(whole)


def test_ctrl_c_on_the_command_saves_and_resume_gives_the_same_run(dataset, tmp_path):
    config = replace(CONFIG, epochs=40, patience=40)
    whole, stopped = tmp_path / "whole.run", tmp_path / "stopped.run"
    training(dataset, whole, config).train()
    words = [f"{name}={value}" for name, value in vars(config).items()]
    settings = [part for word in words for part in ("--set", word)]
    command = [sys.executable, "-m", "syncrec", "train", str(dataset.path), "--out", str(stopped)]
    started = subprocess.Popen(
        [*command, *settings], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and started.poll() is None:
            if (stopped / LOG).exists() and (stopped / LOG).read_bytes().count(b"\n") > 20:
                break
            time.sleep(0.01)
        started.send_signal(signal.SIGINT)
        _, error = started.communicate(timeout=60)
    finally:
        started.kill()
    assert started.returncode == 1, error
    assert "saved: the same command with --resume goes on" in error
    assert "Traceback" not in error
    assert 0 < len(lines(stopped)) < len(lines(whole))
    again = training(dataset, stopped, config)
    again.resume()
    again.train()
    assert files(stopped) == files(whole)


def test_a_loss_that_is_not_finite_stops_naming_the_step_and_keeps_the_last_checkpoint(dataset, tmp_path):
    path, kept = tmp_path / "nan.run", {}

    def spoil():
        kept.update(files(path))
        with torch.no_grad():
            run.objective.network.cross_tower.norm.weight.fill_(float("nan"))

    run = training(dataset, path, report=after_steps(6, spoil))
    with pytest.raises(WorkFailed, match="the loss is nan at epoch 2, step 3") as caught:
        run.train()
    assert str(path / LAST) in str(caught.value)
    assert files(path)[LAST] == kept[LAST]
    assert files(path)[BEST] == kept[BEST]
    assert all(values.isfinite().all() for values in load_file(path / LAST).values())
    again = training(dataset, path)
    again.resume()
    assert (again.state.epoch, again.state.step) == (2, 0)


def test_a_network_that_breaks_in_the_last_step_of_an_epoch_stops_as_clearly(dataset, tmp_path):
    path = tmp_path / "nan.run"

    def spoil():
        with torch.no_grad():
            run.objective.network.cross_tower.norm.weight.fill_(float("nan"))

    run = training(dataset, path, report=after_steps(8, spoil))
    with pytest.raises(WorkFailed, match="epoch 2"):
        run.train()
    again = training(dataset, path)
    again.resume()
    assert (again.state.epoch, again.state.step) == (2, 0)


class Scores:
    """Validation with given scores."""

    def __init__(self, *scores):
        self.scores = iter(scores)
        self.seen = []

    def score(self, objective):
        self.seen.append({name: values.clone() for name, values in objective.state_dict().items()})
        return next(self.scores)


def test_the_best_epoch_is_kept_and_training_stops_when_patience_ends(dataset, tmp_path):
    run = training(dataset, tmp_path / "a.run", replace(CONFIG, epochs=9, patience=2))
    run.validation = Scores(0.1, 0.5, 0.4, 0.5, 0.9)
    assert run.train() == 0.5
    assert len(run.validation.seen) == 4  # an equal score is not better
    best = load_file(tmp_path / "a.run" / BEST)
    assert best.keys() == run.validation.seen[1].keys()
    assert all(torch.equal(values, run.validation.seen[1][name]) for name, values in best.items())
    assert run.state.best_epoch == 2
    assert run.state.finished


def test_the_last_epoch_ends_training_however_good_it_is(dataset, tmp_path):
    run = training(dataset, tmp_path / "a.run", replace(CONFIG, epochs=2, patience=9))
    run.validation = Scores(0.1, 0.2, 0.3)
    assert run.train() == 0.2
    assert run.state.best_epoch == 2


def test_a_run_without_any_hit_still_keeps_a_checkpoint(dataset, tmp_path):
    run = training(dataset, tmp_path / "a.run", replace(CONFIG, epochs=2, patience=9))
    run.validation = Scores(0.0, 0.0)
    run.train()
    assert run.state.best_epoch == 1
    assert (tmp_path / "a.run" / BEST).exists()


def test_patience_survives_an_interrupt(dataset, tmp_path):
    config, path = replace(CONFIG, epochs=9, patience=2), tmp_path / "a.run"
    run = training(dataset, path, config, report=after_steps(10, interrupt))  # in the third epoch
    run.validation = Scores(0.5, 0.4)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    again = training(dataset, path, config)
    again.resume()
    again.validation = Scores(0.3, 0.9)
    assert again.train() == 0.5
    assert len(again.validation.seen) == 1


def test_the_log_holds_gap_lambda_and_weight_of_every_domain_at_every_step(whole):
    steps = [line for line in lines(whole) if line["kind"] == "step"]
    average = dict.fromkeys(SIZES, 0.0)
    for step in steps:
        for key in ("phi", "lambda", "weight"):
            assert list(step[key]) == list(SIZES)
        for name in SIZES:
            average[name] = 0.9 * average[name] + 0.1 * step["phi"][name]
            assert step["lambda"][name] == pytest.approx(average[name], abs=1e-6)
        assert np.mean(list(step["weight"].values())) == pytest.approx(1, abs=1e-5)
        assert step["loss"] > 0
        assert step["single"] > 0
        assert step["cross"] > 0
        assert step["mutual_information"] > 0
    assert [(step["epoch"], step["step"]) for step in steps] == [(e, s) for e in (1, 2, 3) for s in (1, 2, 3, 4)]
    epochs = [line for line in lines(whole) if line["kind"] == "epoch"]
    assert [epoch["epoch"] for epoch in epochs] == [1, 2, 3]
    assert all(0 <= epoch["validation_ndcg_at_10"] <= 1 for epoch in epochs)


def test_the_checkpoint_holds_lambda_as_it_was_last_logged(whole):
    (last,) = [line for line in lines(whole) if line["kind"] == "step"][-1:]
    assert load_file(whole / LAST)["gap.average"].tolist() == pytest.approx(list(last["lambda"].values()))


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(dataset, whole, tmp_path):
    training(dataset, tmp_path / "again.run").train()
    assert files(tmp_path / "again.run") == files(whole)
    training(dataset, tmp_path / "other.run", replace(CONFIG, seed=43)).train()
    assert lines(tmp_path / "other.run")[0]["loss"] != lines(whole)[0]["loss"]


def test_numbers_do_not_depend_on_random_draws_around_the_run(dataset, whole, tmp_path):
    torch.manual_seed(999)
    training(dataset, tmp_path / "a.run", report=lambda _: torch.rand(3)).train()
    assert files(tmp_path / "a.run") == files(whole)


def test_a_checkpoint_of_another_dataset_is_refused(dataset, whole, tmp_path):
    other = write_dataset(tmp_path / "other.dataset", SIZES, [[1, 2, 9], [3, 8]])
    run = Training(other, CONFIG, whole, Processes(), lambda _: None)
    with pytest.raises(WorkFailed, match=r"is a checkpoint of another dataset than .*other\.dataset"):
        run.resume()


def test_a_damaged_checkpoint_is_refused(dataset, whole, tmp_path):
    path = tmp_path / "a.run"
    run = training(dataset, path)
    (path / LAST).write_bytes(files(whole)[LAST][:-10])
    with pytest.raises(WorkFailed, match=r"last\.safetensors: damaged checkpoint"):
        run.resume()


def test_a_run_killed_before_its_first_checkpoint_resumes_from_the_beginning(dataset, whole, tmp_path):
    killed = training(dataset, tmp_path / "a.run")
    (tmp_path / "a.run" / LOG).write_text("half a li")
    killed.resume()
    killed.train()
    assert files(tmp_path / "a.run") == files(whole)


def test_a_disk_that_fills_up_under_the_log_is_a_clear_failure(dataset, tmp_path, monkeypatch):
    run = training(dataset, tmp_path / "a.run")
    real = Path.open

    def full(self, *args, **kwargs):
        if self.name == LOG:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(WorkFailed, match=r"log\.jsonl: No space left on device"):
        run.train()


def test_a_disk_that_fills_up_under_the_checkpoint_keeps_the_former_one(dataset, tmp_path, monkeypatch):
    path, kept = tmp_path / "a.run", {}

    def fill():
        kept.update(files(path))

        def full(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("formats.files.os.fsync", full)

    with pytest.raises(WorkFailed, match="No space left on device"):
        training(dataset, path, report=after_steps(6, fill)).train()
    assert files(path)[LAST] == kept[LAST]


def test_the_opened_run_is_its_best_network_in_evaluation_mode(dataset, whole):
    write_run(whole, CONFIG, dataset)
    trained = open_trained(whole)
    best = load_file(whole / BEST)
    assert trained.run.config == CONFIG
    assert not trained.objective.training
    assert all(torch.equal(values, best[name]) for name, values in trained.objective.state_dict().items())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_domain_made_unrelated_to_the_rest_ends_with_the_smallest_weight(tmp_path, seed):
    """Every user is of one of six kinds and reads the items of that kind; in C, users have been shuffled."""
    random = np.random.default_rng(seed)
    users, kinds, per_kind, events = 150, 6, 5, 3
    size = kinds * per_kind

    def of(domain, kind):
        return [1 + size * domain + per_kind * kind + int(i) for i in random.choice(per_kind, events, replace=False)]

    kind = random.integers(0, kinds, users)
    shuffled = random.permutation(kind)
    histories = []
    for user in range(users):
        three = [of(0, kind[user]), of(1, kind[user]), of(2, shuffled[user])]
        order = random.permutation([0, 1, 2] * events)
        histories.append([three[domain].pop() for domain in order])
    dataset = write_dataset(tmp_path / "kinds.dataset", {"A": size, "B": size, "C": size}, histories)
    config = TrainingConfig(
        dim=16, layers=1, experts=3, dropout=0.0, max_history=9, batch_windows=50, epochs=20, patience=99,
        learning_rate=0.005, temperature=0.1, candidates=0, seed=seed,
    )  # fmt: skip
    run = training(dataset, tmp_path / "a.run", config)
    run.train()
    weights = run.objective.gap.weights()
    assert weights.argmin() == 2
    assert weights[2] < 0.5
    assert weights[:2].min() > 1
