import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests.reference.baselines import SlowReader, lively
from tests.reference.datasets import random_histories, write_dataset
from tests.reference.packed import inputs_of
from training.baselines.config import SASRecConfig
from training.baselines.scoring import newest_events
from training.batches import Batches
from training.cases import contexts
from training.loop import Training
from training.methods import PRESETS, build_objective
from training.processes import Processes
from training.task import catalogue_of

SIZES = {"A": 5, "B": 6, "C": 4}  # items 1-5, 6-11, 12-15
FIRST = (1, 6, 12, 16)
ALONE = Processes()
SOFTMAX = SASRecConfig(dim=8, max_history=6, layers=1, dropout=0.0, batch_windows=8, candidates=100)
BCE = SASRecConfig(dim=8, max_history=6, layers=1, dropout=0.0, batch_windows=8, candidates=0, loss="bce")


def setting(folder, config):
    """Dataset, objective in float64 with lively weights, and the batches of epoch 1; C is rare, one user has two windows."""
    histories = [*random_histories((5, 6, 4), users=9, longest=6, seed=2), [1, 6, 2, 7, 1, 8, 2, 9, 3], [1, 2], [6]]
    dataset = write_dataset(folder / "small.dataset", SIZES, histories, validation=[[1], [6, (0, 3), 12], [2]])
    objective = build_objective(config, dataset).double()
    lively(objective.network)
    batches = Batches(
        dataset,
        config.max_history + 1,
        config.batch_windows,
        config.every_window,
        config.seed,
        config.candidates or None,
    )
    return dataset, objective, list(batches.epoch(1))


def slow_loss(slow, batch, n, loss):
    """The loss of one target; all items of a domain are candidates."""
    state = slow.causal(list(inputs_of(batch.cross, int(batch.cross_slot[n]))))[-1]
    vectors = slow.p["encoder.item_embedding.weight"]
    target, domain = int(batch.target[n]), int(batch.domain[n])
    own = vectors[target] @ state
    if loss == "bce":
        other = vectors[batch.negative[n]] @ state
        return -torch.log(torch.sigmoid(own)) - torch.log(1 - torch.sigmoid(other))
    scores = vectors[FIRST[domain] : FIRST[domain + 1]] @ state
    return torch.log(torch.exp(scores - own).sum())


@pytest.mark.parametrize("config", [SOFTMAX, BCE], ids=lambda config: config.loss)
def test_the_loss_and_every_gradient_are_those_of_a_loop_over_the_targets(tmp_path, config):
    _, objective, batches = setting(tmp_path, config)
    slow = SlowReader(objective.network, heads=2)
    for batch in batches:
        each = torch.stack([slow_loss(slow, batch, n, config.loss) for n in range(len(batch.target))])
        losses = objective(batch, ALONE)
        assert_close(losses.share, each.mean(), rtol=0, atol=1e-10)
        assert losses.total == pytest.approx(each.mean().item())
        for domain, mean in enumerate(losses.per_domain["mean_loss"].tolist()):
            own = each[batch.domain == domain].tolist()
            assert mean == pytest.approx(np.mean(own) if own else 0)
        ours = torch.autograd.grad(losses.share, list(objective.parameters()))
        expected = torch.autograd.grad(each.mean(), list(objective.parameters()))
        for one, other in zip(ours, expected, strict=True):
            assert_close(one, other, rtol=0, atol=1e-9)


def test_the_scorer_ranks_by_the_state_after_the_newest_known_events_of_all_domains(tmp_path):
    dataset, objective, _ = setting(tmp_path, SOFTMAX)
    slow = SlowReader(objective.network, heads=2)
    cases, vectors = contexts(dataset, "validation"), slow.p["encoder.item_embedding.weight"]
    score = objective.scorers(catalogue_of(dataset))["cross"]
    assert any(0 in cases.history(case) for case in range(len(cases)))
    for domain in range(3):
        found = score(cases, domain)
        for case in range(len(cases)):
            known = [int(item) for item in cases.history(case) if item][-6:]
            state = slow.causal([16, *known])[-1]
            expected = vectors[FIRST[domain] : FIRST[domain + 1]] @ state
            assert_close(torch.from_numpy(found[case]), expected.detach(), rtol=0, atol=1e-10)


def test_rows_of_newest_events_are_no_wider_than_the_longest_needs():
    histories = [np.array(row, dtype=np.int32) for row in ([5, 0, 3], [2], [], [1, 2, 3, 4])]
    sequences = newest_events(histories, max_history=3, items=9)
    assert sequences.item.tolist() == [[0, 10, 5, 3], [0, 0, 10, 2], [0, 0, 0, 10], [10, 2, 3, 4]]
    assert sequences.position.tolist() == [[0, 0, 1, 2], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3]]
    assert sequences.segment.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1]]
    assert newest_events([histories[2]], max_history=3, items=9).item[:, -1].tolist() == [10]


@pytest.mark.parametrize("preset", ["sasrec", "sasrec-ss", "mmoe", "ple"])
def test_the_network_learns_eight_users_by_heart(tmp_path, preset):
    """Every user has two items of each domain that nobody else has; the second follows from the first."""
    random = np.random.default_rng(0)
    histories = [[int(i) for i in random.permutation([1, 2, 17, 18, 33, 34]) + 2 * user] for user in range(8)]
    dataset = write_dataset(tmp_path / "eight.dataset", {"A": 16, "B": 16, "C": 16}, histories)
    config = replace(
        PRESETS[preset](), dim=16, max_history=6, layers=1, dropout=0.0, learning_rate=0.01, epochs=80, patience=80, seed=1
    )  # fmt: skip
    training = Training(dataset, config, tmp_path, ALONE, lambda _: None)
    training.train()
    (batch,) = training.batches.epoch(1)
    network = training.objective.network.eval()
    with torch.no_grad():
        states = network.at_slots(batch.cross, batch.cross_slot, batch.targets_per_domain)
    hits = []
    for n, (target, domain) in enumerate(zip(batch.target.tolist(), batch.domain.tolist(), strict=True)):
        seen = inputs_of(batch.cross, int(batch.cross_slot[n]))
        columns = [item for item in range(1 + 16 * domain, 17 + 16 * domain) if item not in seen]
        if len(columns) == 15:  # the first item of this domain was read
            hits.append(columns[int((network.item_vectors()[columns] @ states[n]).argmax())] == target)
    assert hits == [True] * 24


def test_without_dropout_the_first_loss_is_about_that_of_guessing(tmp_path):
    """Weights begin small, so all items of a domain are about as likely."""
    dataset, *_ = setting(tmp_path, SOFTMAX)
    objective = build_objective(SOFTMAX, dataset)
    batches = Batches(dataset, 7, 100, every_window=True, seed=0, candidates=100)
    losses = objective(next(batches.epoch(1)), ALONE)
    guessing = [math.log(size) for size in SIZES.values()]
    assert losses.per_domain["mean_loss"].tolist() == pytest.approx(guessing, abs=0.3)
