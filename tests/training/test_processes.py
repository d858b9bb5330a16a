"""Several processes must do exactly what one does: the real loop, gloo on this machine, float64, no dropout."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.reference.datasets import random_histories, write_dataset
from tests.reference.two_ranks import train_here
from training.batches import Batches
from training.config import TrainingConfig
from training.methods import to_json
from training.processes import Processes, joined_processes

ROOT = Path(__file__).parents[2]
CLOSE = {"rtol": 0, "atol": 1e-10}
CONFIG = TrainingConfig(
    dim=8,
    layers=1,
    experts=3,
    dropout=0.0,
    max_history=3,
    mutual_information=0.5,
    temperature=0.1,
    batch_windows=5,
    epochs=3,
    learning_rate=0.01,
)

# Fewer windows in a batch than processes.
NARROW = replace(CONFIG, batch_windows=1, epochs=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """C has one user only; one user has many windows."""
    histories = random_histories((7, 8), users=16, longest=7, seed=4)
    histories += [[1, 8, 2, 9, 3, 10, 1, 8, 2, 9, 3, 10, 4, 11, 1, 2, 8, 9] * 2, [16, 17, 1]]
    path = tmp_path_factory.mktemp("processes") / "small.dataset"
    return write_dataset(path, {"A": 7, "B": 8, "C": 5}, histories, validation=[[2], [9], [3]])


def start(jobs, folder, ranks):
    """Do jobs in so many processes; how each job ended on each rank."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.reference.two_ranks", folder / "jobs.json"],
            cwd=ROOT,
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    try:
        ends = [process.communicate(timeout=120) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * ranks, "\n".join(err for _, err in ends)
    return [out.split() for out, _ in ends]


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """The folder with all runs; how the jobs of two processes ended."""
    folder = tmp_path_factory.mktemp("runs")

    def job(name, config, **more):
        (folder / name).mkdir(exist_ok=True)
        return {"dataset": str(dataset.path), "run": str(folder / name), "config": to_json(config), **more}

    for name, config in (("one", CONFIG), ("one-narrow", NARROW)):
        assert train_here(job(name, config), Processes()) == "finished"
    jobs = [
        job("two", CONFIG),
        job("two-narrow", NARROW),
        job("two-stopped", CONFIG, stop=10),
        job("two-stopped", CONFIG),
    ]
    return folder, start(jobs, folder, ranks=2)


def same_run(one, other):
    """The same log (losses, gaps, lambda, weights, validation) and the same parameters and optimiser, within rounding."""
    logs = [[json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()] for run in (one, other)]
    assert len(logs[0]) == len(logs[1])
    for ours, theirs in zip(*logs, strict=True):
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert theirs[key] == (pytest.approx(value, rel=0, abs=1e-10) if key != "kind" else value)
    for file in ("last.safetensors", "best.safetensors"):
        ours, theirs = load_file(one / file), load_file(other / file)
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            torch.testing.assert_close(theirs[name], values, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")
    return logs[0]


def test_the_small_dataset_has_what_makes_it_hard(dataset):
    """Unequal shares, a domain that only one rank has, a user who is on both ranks."""
    batches = Batches(dataset, CONFIG.max_history + 1, CONFIG.batch_windows, CONFIG.every_window, CONFIG.seed)
    shares = [
        shares
        for epoch in range(1, CONFIG.epochs + 1)
        for shares in zip(*(batches.epoch(epoch, rank=rank, ranks=2) for rank in range(2)), strict=True)
    ]
    assert any(len(one.target) != len(other.target) for one, other in shares)
    assert any(bool(one.targets_per_domain[2]) != bool(other.targets_per_domain[2]) for one, other in shares)
    assert any(set(one.user.tolist()) & set(other.user.tolist()) for one, other in shares)
    assert len(shares) >= 20


def test_two_processes_train_as_one(runs):
    folder, ends = runs
    assert [end[0] for end in ends] == ["finished"] * 2
    steps = [line for line in same_run(folder / "one", folder / "two") if line["kind"] == "step"]
    assert any(step["mutual_information"] > 0 for step in steps)
    assert any(step["phi"]["C"] == 0 for step in steps)
    assert any(step["phi"]["C"] != 0 for step in steps)
    assert steps[-1]["lambda"]["A"] != 0


def test_a_process_without_any_window_takes_part_all_the_same(runs):
    folder, ends = runs
    assert [end[1] for end in ends] == ["finished"] * 2
    same_run(folder / "one-narrow", folder / "two-narrow")


def test_an_interrupt_of_one_process_stops_all_after_the_same_step_and_can_be_resumed(runs):
    folder, ends = runs
    assert [end[2:] for end in ends] == [["interrupted", "finished"]] * 2
    same_run(folder / "one", folder / "two-stopped")


def test_one_process_sums_nothing():
    values = torch.tensor([1.0, 2.0], requires_grad=True)
    assert Processes().sum(values).tolist() == [1, 2]
    assert not Processes().sum(values).requires_grad
    assert Processes().sum_with_gradient(values) is values
    assert [Processes().any(flag) for flag in (True, False)] == [True, False]


@pytest.mark.parametrize("variables", [{}, {"RANK": "0", "WORLD_SIZE": "1"}])
def test_without_torchrun_there_is_one_process(monkeypatch, variables):
    monkeypatch.delenv("RANK", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with joined_processes() as processes:
        assert processes == Processes(rank=0, ranks=1)
