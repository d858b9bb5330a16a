"""Gradients of domains, compared along a training that must not notice."""

import numpy as np
import pytest
import torch

from tests.reference.datasets import random_histories, write_dataset
from training.baselines.config import SASRecConfig
from training.batches import Batches
from training.checkpoint import read_checkpoint
from training.estimators.gradients import LOOK_AHEAD, MeasuredTransfer, from_others
from training.methods import build_objective
from training.processes import Processes
from training.run import BEST
from training.studies.pieces import train_piece

SIZES = {"A": 12, "B": 9}
CONFIG = SASRecConfig(dim=8, heads=1, layers=1, max_history=6, batch_windows=16, epochs=2, candidates=99, seed=3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    rows = random_histories(tuple(SIZES.values()), users=60, longest=9, seed=1)
    return write_dataset(tmp_path_factory.mktemp("gradients") / "d", SIZES, rows, validation=[row[:1] for row in rows])


def first_batch(dataset):
    return next(iter(Batches(dataset, 7, 64, every_window=True, seed=1, candidates=99).epoch(1)))


def test_cosine_and_affinity_are_those_of_slow_gradients(dataset):
    objective = MeasuredTransfer(build_objective(CONFIG, dataset), 2, every_steps=1).eval()
    batch = first_batch(dataset)

    def losses():
        of_domain = objective.losses(batch)
        return torch.stack([of_domain[batch.domain == domain].mean() for domain in range(2)])

    flat = []
    for domain in range(2):
        objective.zero_grad()
        losses()[domain].backward()
        flat.append(torch.cat([p.grad.flatten() for p in objective.parameters()]))
    objective.after_step(batch, Processes())
    cosine = (flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()).item()
    assert objective.cosines[0, 1].item() == pytest.approx(cosine, abs=1e-5)
    assert objective.cosines.diagonal().tolist() == pytest.approx([1, 1])
    before = losses().detach()
    # What a step for itself does to a loss, to first order.
    own = LOOK_AHEAD * torch.stack([f @ f for f in flat]) / before
    assert objective.affinities.diagonal().tolist() == pytest.approx(own.tolist(), rel=0.2)
    assert objective.measured.item() == 1


def test_a_watched_training_is_the_same_training(dataset, tmp_path):
    def watch(training):
        training.objective = MeasuredTransfer(training.objective, 2, every_steps=2)

    train_piece(tmp_path / "plain.run", CONFIG, dataset)
    train_piece(tmp_path / "watched.run", CONFIG, dataset, watch)
    plain, watched = (read_checkpoint(tmp_path / name / BEST)[0] for name in ("plain.run", "watched.run"))
    assert all(torch.equal(tensor, watched[name]) for name, tensor in plain.items())
    assert watched["measured"].item() > 0


def test_only_every_so_many_steps_and_only_whole_batches_are_measured(dataset):
    objective = MeasuredTransfer(build_objective(CONFIG, dataset), 2, every_steps=3)
    batch = first_batch(dataset)
    for _ in range(7):
        objective.after_step(batch, Processes())
    assert objective.measured.item() == 3
    objective.after_step(batch, Processes())
    objective.after_step(batch._replace(targets_per_domain=[len(batch.target), 0]), Processes())
    objective.after_step(batch._replace(targets_per_domain=[len(batch.target), 0]), Processes())
    assert objective.measured.item() == 3


def test_what_comes_from_others_leaves_the_own_out():
    matrix = torch.tensor([[9.0, 1, 2], [3, 9, 4], [5, 6, 9]])
    assert from_others(matrix) == [4, 3.5, 3]
    assert np.isfinite(from_others(matrix)).all()
