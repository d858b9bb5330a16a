import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.losses import pairwise_loss
from tests.reference.datasets import random_histories, write_dataset
from tests.reference.losses import step_loss
from tests.reference.network import SlowNetwork, lively
from tests.reference.packed import inputs_of
from training.batches import Batches
from training.config import TrainingConfig
from training.loop import Training
from training.methods import build_objective
from training.objective import next_item_losses
from training.processes import Processes

SIZES = {"A": 5, "B": 6, "C": 4}  # items 1-5, 6-11, 12-15
CONFIG = TrainingConfig(
    dim=8,
    max_history=6,
    layers=1,
    experts=3,
    dropout=0.0,
    temperature=0.3,
    mutual_information=0.7,
    batch_windows=8,
    candidates=0,
)
ALONE = Processes()


def setting(folder, histories, config=CONFIG, sizes=SIZES):
    """Dataset, objective in float64 with lively weights, and the batches of epoch 1."""
    dataset = write_dataset(folder / "small.dataset", sizes, histories)
    objective = build_objective(config, dataset).double()
    lively(objective.network)
    with torch.no_grad():
        objective.mutual.bilinear.normal_()
    batches = Batches(dataset, config.max_history + 1, config.batch_windows, config.every_window, config.seed)
    return dataset, objective, list(batches.epoch(1))


@pytest.fixture
def histories():
    # Eleven users, one with two windows; C is rare, so that some batches lack it.
    return [*random_histories((5, 6, 4), users=9, longest=6, seed=2), [1, 6, 2, 7, 1, 8, 2, 9, 3], [1, 2], [6]]


def slow_step(objective, batch, average):
    """The loss of a batch, one target after the other."""
    network = objective.network
    slow = SlowNetwork(network, tuple(SIZES.values()), heads=2, single_experts=1)
    vectors = network.item_embedding.weight
    targets = []
    for n in range(len(batch.target)):
        domain = int(batch.domain[n])
        single = slow.single(list(inputs_of(batch.single, int(batch.single_slot[n]))[1:]), domain)[-1]
        cross = slow.cross(list(inputs_of(batch.cross, int(batch.cross_slot[n]))[1:]))[-1]
        positive, negative = vectors[batch.target[n]], vectors[batch.negative[n]]
        targets.append((int(batch.user[n]), domain, single, cross, positive, negative))
    return step_loss(
        targets, average, momentum=0.9, temperature=0.3, floor=0.05, eta=0.7, matrix=objective.mutual.bilinear, dim=8
    )


def gradients(loss, objective):
    found = torch.autograd.grad(loss, list(objective.parameters()), allow_unused=True)
    return [
        torch.zeros_like(p) if gradient is None else gradient
        for p, gradient in zip(objective.parameters(), found, strict=True)
    ]


def test_loss_gaps_lambda_and_every_gradient_are_those_of_the_slow_formulas(tmp_path, histories):
    """Two steps in a row, so that lambda is not zero, with padding, a missing domain and a user with two windows."""
    _, objective, batches = setting(tmp_path, histories)
    average = [0.3, -0.2, 0.1]
    objective.gap.average.copy_(torch.tensor(average))
    for batch in batches[:2]:
        expected, phi, average = slow_step(objective, batch, objective.gap.average.tolist())
        losses = objective(batch, ALONE)
        assert_close(losses.share, expected, rtol=0, atol=1e-10)
        assert losses.total == pytest.approx(expected.item())
        assert losses.per_domain["phi"].tolist() == pytest.approx(phi)
        assert objective.gap.average.tolist() == pytest.approx(average)
        for ours, slow in zip(gradients(losses.share, objective), gradients(expected, objective), strict=True):
            assert_close(ours, slow, rtol=0, atol=1e-9)


def test_the_parts_of_the_loss_add_up(tmp_path, histories):
    _, objective, (batch, *_) = setting(tmp_path, histories)
    losses = objective(batch, ALONE)
    out = objective.network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
    vectors = objective.network.item_vectors()
    each = [pairwise_loss((y * vectors[batch.target]).sum(-1), (y * vectors[batch.negative]).sum(-1)) for y in out]
    assert losses.terms["single"] == pytest.approx(each[0].mean().item())
    assert losses.terms["cross"] == pytest.approx(each[1].mean().item())
    weighted = (objective.gap.weights()[batch.domain] * each[1]).mean().item()
    assert losses.total == pytest.approx(losses.terms["single"] + weighted + 0.7 * losses.terms["mutual_information"])


def test_with_equal_lambda_the_weighted_loss_is_the_plain_one(tmp_path, histories):
    _, objective, (batch, *_) = setting(tmp_path, histories)
    objective.gap.momentum = 1.0  # lambda stays as it is: equal
    for value in (0.0, -0.7):
        objective.gap.average.fill_(value)
        losses = objective(batch, ALONE)
        assert losses.total == pytest.approx(
            losses.terms["single"] + losses.terms["cross"] + 0.7 * losses.terms["mutual_information"]
        )


def test_the_gradient_is_that_with_constant_weights(tmp_path, histories):
    """lambda is made of the losses, but nothing is differentiated through it."""
    _, objective, (batch, *_) = setting(tmp_path, histories)
    objective.mutual_information = 0.0
    share = objective(batch, ALONE).share
    weights = objective.gap.weights().clone()
    out = objective.network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
    vectors = objective.network.item_vectors()
    single, cross = (
        pairwise_loss((y * vectors[batch.target]).sum(-1), (y * vectors[batch.negative]).sum(-1)) for y in out
    )
    constant = single.mean() + (weights[batch.domain] * cross).mean()
    assert weights.max() - weights.min() > 0.01
    for ours, expected in zip(gradients(share, objective), gradients(constant, objective), strict=True):
        assert_close(ours, expected, rtol=0, atol=1e-12)


def test_a_domain_that_a_batch_lacks_keeps_its_lambda(tmp_path):
    _, objective, (batch,) = setting(tmp_path, [[1, 2, 6], [7, 3]])
    objective.gap.average.copy_(torch.tensor([0.1, 0.2, 0.3]))
    losses = objective(batch, ALONE)
    assert losses.per_domain["phi"][2] == 0
    assert float(objective.gap.average[2]) == pytest.approx(0.3)
    assert float(objective.gap.average[0]) == pytest.approx(0.9 * 0.1 + 0.1 * float(losses.per_domain["phi"][0]))


def test_padding_adds_nothing(tmp_path, histories):
    """The same batch in rows three slots longer: the same loss."""
    dataset, objective, _ = setting(tmp_path, histories, CONFIG)
    found = []
    for slots in (7, 10):
        batches = Batches(dataset, 7, 100, every_window=False, seed=0)
        batches.slots = 7
        windows = batches.windows(1)
        batches.slots = slots  # room of a row, the windows stay
        batch = batches._batch(windows, np.random.default_rng(0), 0, 1)
        objective.gap.average.zero_()
        found.append(objective(batch, ALONE).total)
    assert found[1] == pytest.approx(found[0], abs=1e-10)


def test_the_same_negative_serves_both_tasks(tmp_path, histories):
    """Two towers with the same answer have a gap of exactly zero."""
    _, objective, (batch, *_) = setting(tmp_path, histories)

    class Same(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.item_vectors = network.item_vectors
            self.network = network

        def forward(self, *batch):
            out = self.network(*batch)
            return out._replace(single=out.cross)

    objective.network = Same(objective.network)
    losses = objective(batch, ALONE)
    assert losses.per_domain["phi"].abs().max() == 0
    assert losses.terms["single"] == losses.terms["cross"]


def test_weights_of_items_follow_negative_transfer(tmp_path, histories):
    """C_d > S_d in one domain only: that domain's weight is the smallest."""
    _, objective, (batch, *_) = setting(tmp_path, histories)

    class Worse(torch.nn.Module):
        def __init__(self, network):
            super().__init__()
            self.item_vectors = network.item_vectors
            self.network = network

        def forward(self, *batch):
            out = self.network(*batch)
            difference = self.item_vectors()[self.target] - self.item_vectors()[self.negative]
            worse = torch.where(self.domain[:, None] == 1, -difference, 0)
            return out._replace(single=out.cross, cross=out.cross + worse)

    objective.network = Worse(objective.network)
    objective.network.target, objective.network.negative = batch.target, batch.negative
    objective.network.domain = batch.domain
    losses = objective(batch, ALONE)
    assert losses.per_domain["phi"][1] < 0
    assert losses.per_domain["phi"][0] == losses.per_domain["phi"][2] == 0
    assert objective.gap.weights().argmin() == 1


def test_sc_mim_reaches_both_towers_and_respects_the_stop_gradient(tmp_path, histories):
    _, objective, (batch, *_) = setting(tmp_path, histories)
    out = objective.network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
    constant = out.single.detach().requires_grad_(), out.cross.detach().requires_grad_()
    term = objective._mutual_information(*constant, batch, ALONE)
    assert all(gradient.abs().sum() > 0 for gradient in torch.autograd.grad(term, constant))
    # Against the SDSR side alone, experts of CDSR learn nothing.
    term = objective._mutual_information(out.single, constant[1], batch, ALONE)
    experts = objective.network.acmoe.experts
    teaches = [
        torch.autograd.grad(term, expert.layers[0].query.weight, retain_graph=True, allow_unused=True)[0]
        for expert in experts
    ]
    assert teaches[0].abs().sum() > 0
    assert teaches[1] is None
    assert teaches[2] is None


def test_without_sc_mim_its_matrix_stays_as_it_is(tmp_path, histories):
    _, objective, (batch, *_) = setting(tmp_path, histories)
    objective.mutual_information = 0.0
    objective(batch, ALONE).share.backward()
    assert (objective.mutual.bilinear.grad == 0).all()


def test_a_batch_of_one_user_and_of_one_target_is_finite(tmp_path):
    for number, history in enumerate([[1], [1, 2, 6, 7, 12]]):
        _, objective, (batch,) = setting(tmp_path / str(number), [history])
        losses = objective(batch, ALONE)
        losses.share.backward()
        assert losses.terms["mutual_information"] == 0
        assert math.isfinite(losses.total)
        assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


def test_with_one_domain_both_tasks_see_the_same_input_and_lambda_cannot_change_the_loss(tmp_path):
    histories = random_histories((9,), users=6, longest=6, seed=1)
    _, objective, (batch, *_) = setting(tmp_path, histories, sizes={"A": 9})
    for single, cross in zip(batch.single[:2], batch.cross[:2], strict=True):
        assert torch.equal(single, cross)
    assert torch.equal(batch.single.domain, torch.zeros_like(batch.single.domain))
    for one, other in (
        (batch.single_slot, batch.cross_slot),
        (batch.single.segment > 0, batch.cross.segment > 0),
    ):
        assert torch.equal(one, other)
    found = []
    for value in (-3.0, 0.0, 5.0):
        objective.gap.average.fill_(value)
        found.append(objective(batch, ALONE).total)
    assert found[0] == found[1] == found[2]


def test_the_network_learns_eight_users_by_heart(tmp_path):
    """Where the next item follows from what was read, HR@1 is 1 for both tasks.

    Every user has two items of each domain that nobody else has. The second follows from the first. (Which of two items
    of their own comes first is never taught: a user's own items are no negatives.)
    """
    random = np.random.default_rng(0)
    histories = [[int(i) for i in random.permutation([1, 2, 17, 18, 33, 34]) + 2 * user] for user in range(8)]
    dataset = write_dataset(tmp_path / "eight.dataset", {"A": 16, "B": 16, "C": 16}, histories)
    config = TrainingConfig(
        dim=16, max_history=6, layers=1, experts=3, dropout=0.0, learning_rate=0.01, epochs=80, patience=80, seed=1
    )
    training = Training(dataset, config, tmp_path, ALONE, lambda _: None)
    training.train()
    (batch,) = training.batches.epoch(1)
    network = training.objective.network.eval()
    with torch.no_grad():
        out = network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
    hits = {"single": [], "cross": []}
    for n, (target, domain) in enumerate(zip(batch.target.tolist(), batch.domain.tolist(), strict=True)):
        seen = inputs_of(batch.cross, int(batch.cross_slot[n]))
        columns = [item for item in range(1 + 16 * domain, 17 + 16 * domain) if item not in seen]
        if len(columns) == 15:  # the first item of this domain was read
            for task, found in hits.items():
                scores = network.item_vectors()[columns] @ getattr(out, task)[n]
                found.append(columns[int(scores.argmax())] == target)
    assert hits == {"single": [True] * 24, "cross": [True] * 24}


def test_with_candidates_the_loss_is_the_softmax_over_the_targets_domain(tmp_path, histories):
    """All items of each domain are drawn, so the estimate is exact."""
    dataset, objective, _ = setting(tmp_path, histories)
    batches = Batches(dataset, CONFIG.max_history + 1, 8, every_window=True, seed=0, candidates=100)
    first = dict(zip(range(3), (1, 6, 12), strict=True))
    for batch in batches.epoch(1):
        assert batch.negative is None
        states = torch.randn(len(batch.target), 8, dtype=torch.float64)
        vectors = objective.network.item_vectors().detach()
        found = next_item_losses(states, vectors, batch)
        for n, loss in enumerate(found.tolist()):
            domain = int(batch.domain[n])
            items = range(first[domain], first[domain] + dataset.items_per_domain[domain])
            scores = [float(states[n] @ vectors[item]) for item in items]
            own = scores[int(batch.target[n]) - first[domain]]
            assert loss == pytest.approx(math.log(sum(math.exp(score - own) for score in scores)))
