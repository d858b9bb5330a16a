"""`max_minutes`: training ends after the epoch in which the time is over."""

import signal
from dataclasses import replace

import pytest

import training.loop
from formats.errors import WrongUse
from tests.reference.datasets import random_histories, write_dataset
from training.checkpoint import read_checkpoint
from training.config import TrainingConfig
from training.loop import Stopped, Training
from training.processes import Processes
from training.run import LAST

CONFIG = TrainingConfig(
    dim=8, layers=1, experts=2, max_history=4, batch_windows=8, epochs=9, patience=9, max_minutes=10.0
)


class Clock:
    """Minutes pass when a test says so; otherwise hardly any time does."""

    def __init__(self):
        self.seconds = 1e6

    def monotonic(self):
        self.seconds += 1e-6
        return self.seconds

    def wait(self, minutes):
        self.seconds += 60 * minutes


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(training.loop, "time", clock)
    return clock


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two steps an epoch."""
    histories = random_histories((7, 8), users=10, longest=5, seed=7)
    folder = tmp_path_factory.mktemp("cap") / "small.dataset"
    return write_dataset(folder, {"A": 7, "B": 8}, histories, validation=[[1 + user] for user in range(10)])


def run_of(dataset, path, clock, minutes_per_step, config=CONFIG, interrupt_at=None):
    """A training in which every step takes so many minutes; Ctrl-C in an epoch's first step."""
    epochs = []

    def report(now):
        if now.score is None:
            clock.wait(minutes_per_step)
            if now.epoch == interrupt_at and now.step == 1:
                signal.raise_signal(signal.SIGINT)
        else:
            epochs.append(now.epoch)

    return Training(dataset, config, path, Processes(), report), epochs


@pytest.mark.parametrize(("minutes_per_step", "expected"), [(1.0, 5), (2.4, 3), (5.0, 1), (0.1, 9)])
def test_training_ends_after_the_epoch_in_which_the_time_is_over(dataset, tmp_path, clock, minutes_per_step, expected):
    run, epochs = run_of(dataset, tmp_path, clock, minutes_per_step)
    run.train()
    assert epochs == list(range(1, expected + 1))
    assert run.state.finished


def test_time_before_a_resumption_counts_and_time_between_does_not(dataset, tmp_path, clock):
    run, _ = run_of(dataset, tmp_path, clock, minutes_per_step=1.5, interrupt_at=2)
    with pytest.raises(Stopped):
        run.train()
    _, notes = read_checkpoint(tmp_path / LAST)
    assert notes["seconds"] == pytest.approx(60 * 4.5, abs=1)
    clock.wait(1000)
    again, epochs = run_of(dataset, tmp_path, clock, minutes_per_step=1.5)
    again.resume()
    again.train()
    assert epochs == [2, 3, 4]  # 10 minutes are over in the eighth step


def test_without_a_cap_no_time_is_kept_and_none_ends_training(dataset, tmp_path, clock):
    run, epochs = run_of(dataset, tmp_path, clock, 1000.0, replace(CONFIG, max_minutes=0.0, epochs=3))
    run.train()
    assert epochs == [1, 2, 3]
    assert read_checkpoint(tmp_path / LAST)[1]["seconds"] == 0


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_a_cap_without_sense_is_refused(minutes):
    with pytest.raises(WrongUse, match=r"^max_minutes:"):
        TrainingConfig(max_minutes=minutes)
