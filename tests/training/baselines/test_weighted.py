"""Joint training with weights of domains: static, FAMO, PCGrad, and by Shapley values."""

import math
import sys
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close
from torchjd.aggregation import PCGrad

from formats.errors import WorkFailed, WrongUse
from tests.reference.baselines import SlowReader, lively
from tests.reference.datasets import random_histories, write_dataset
from tests.reference.packed import inputs_of
from training.baselines.config import FamoConfig, PCGradConfig, SASRecConfig, ShapleyConfig, StaticConfig
from training.baselines.shapley import transfers
from training.baselines.weighted import DomainLosses
from training.batches import Batches
from training.methods import build_objective
from training.processes import Processes

SIZES = {"A": 5, "B": 6, "C": 4}  # items 1-5, 6-11, 12-15
FIRST = (1, 6, 12, 16)
ALONE = Processes()
TINY = {"dim": 8, "max_history": 6, "layers": 1, "dropout": 0.0, "batch_windows": 8, "candidates": 100}


@pytest.fixture
def histories():
    return [*random_histories((5, 6, 4), users=9, longest=6, seed=2), [1, 6, 2, 7, 1, 8, 2, 9, 3], [1, 2], [6]]


def setting(folder, histories, config):
    """The objective in float64 with lively weights, and the batches of epoch 1."""
    dataset = write_dataset(folder / "small.dataset", SIZES, histories)
    objective = build_objective(config, dataset).double()
    lively(objective.network)
    batches = Batches(dataset, config.max_history + 1, config.batch_windows, True, config.seed, config.candidates)
    return objective, list(batches.epoch(1))


def means(objective, batch):
    """Mean loss of each domain's targets; None where there is none."""
    losses = objective.losses(batch)
    return [losses[batch.domain == d].mean() if (batch.domain == d).any() else None for d in range(3)]


def gradient(loss, objective):
    found = torch.autograd.grad(loss, list(objective.parameters()), retain_graph=True)
    return torch.cat([values.flatten() for values in found])


@pytest.mark.parametrize(("exponent", "raised"), [(0.0, (1, 1, 1)), (0.5, (3, 2, 1)), (1.0, (9, 4, 1))])
def test_static_weights_are_powers_of_the_domains_sizes(tmp_path, exponent, raised):
    """Nine events of A, four of B, one of C."""
    histories = [[1, 6, 2, 7, 3, 4], [5, 8, 9, 1, 2], [12, 3, 4]]
    objective, (batch, *_) = setting(tmp_path, histories, StaticConfig(**TINY, exponent=exponent))
    losses = objective(batch, ALONE)
    weights = [3 * value / sum(raised) for value in raised]
    assert losses.per_domain["weight"].tolist() == pytest.approx(weights)
    assert objective.per_domain()["weight"] == pytest.approx(weights)
    expected = sum(w * mean for w, mean in zip(weights, means(objective, batch), strict=True)) / 3
    assert losses.total == pytest.approx(expected.item())
    assert_close(gradient(losses.share, objective), gradient(expected, objective), rtol=0, atol=1e-6)


def test_with_exponent_one_a_batch_of_all_events_counts_every_target_the_same(tmp_path, histories):
    objective, _ = setting(tmp_path / "a", histories, StaticConfig(**TINY, exponent=1.0))
    plain, _ = setting(tmp_path / "b", histories, SASRecConfig(**TINY))
    _, (batch,) = setting(tmp_path / "c", histories, SASRecConfig(**{**TINY, "batch_windows": 100}))
    assert objective(batch, ALONE).total == pytest.approx(plain(batch, ALONE).total)


@pytest.mark.parametrize("config", [StaticConfig(**TINY, exponent=0.0), FamoConfig(**TINY), PCGradConfig(**TINY)])
def test_a_domain_that_a_batch_lacks_adds_nothing(tmp_path, config):
    objective, (batch,) = setting(tmp_path, [[1, 2, 6], [7, 3]], config)
    losses = objective(batch, ALONE)
    assert losses.per_domain["mean_loss"][2] == 0
    assert math.isfinite(losses.total)
    present = means(objective, batch)[:2]
    expected = sum(float(w) * mean for w, mean in zip(losses.per_domain["weight"][:2], present, strict=True)) / 3
    assert_close(gradient(losses.share, objective), gradient(expected, objective), rtol=0, atol=1e-10)


def test_famo_descends_the_weighted_sum_of_the_logarithms(tmp_path, histories):
    objective, (batch, *_) = setting(tmp_path, histories, FamoConfig(**TINY))
    objective.xi.copy_(torch.tensor([0.5, -1.0, 0.2]))
    losses = objective(batch, ALONE)
    z = objective.xi.softmax(0)
    logarithms = sum(z[d] * mean.log() for d, mean in enumerate(means(objective, batch)))
    ours, expected = gradient(losses.share, objective), gradient(logarithms, objective)
    assert_close(ours / ours.norm(), expected / expected.norm(), rtol=0, atol=1e-10)
    assert float(losses.per_domain["weight"].mean()) == pytest.approx(1)


class Given:
    """Losses as they are told, in the place of the network's."""

    def __init__(self, objective, monkeypatch):
        self.objective = objective
        monkeypatch.setattr(objective, "domain_losses", lambda *_: self.now)

    def step(self, before, after):
        for values, do in ((before, self.objective.forward), (after, self.objective.after_step)):
            mean = torch.tensor(values, dtype=torch.float64)
            self.now = DomainLosses(mean.clone().requires_grad_(), mean, (mean > 0).long())
            do(None, ALONE)


def test_famo_moves_weight_to_the_domain_that_improves_slowly(tmp_path, histories, monkeypatch):
    objective, _ = setting(tmp_path, histories, FamoConfig(**TINY))
    given = Given(objective, monkeypatch)
    for _ in range(20):
        given.step([2.0, 2.0, 2.0], [1.6, 1.99, 1.8])
    fast, slow, middle = objective.xi.tolist()
    assert slow > middle > fast
    assert sum(objective.per_domain()["weight"]) == pytest.approx(3)


def test_famo_moves_as_the_published_update_does(tmp_path, histories, monkeypatch):
    """Autograd and torch's Adam, as in the authors' code."""
    objective, _ = setting(tmp_path, histories, FamoConfig(**TINY, weight_decay=0.1))
    given = Given(objective, monkeypatch)
    xi = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    adam = torch.optim.Adam([xi], lr=objective.rate, weight_decay=0.1)
    for _ in range(10):
        before, after = torch.rand(2, 3, dtype=torch.float64) + 0.5
        given.step(before.tolist(), after.tolist())
        adam.zero_grad()
        xi.grad = torch.autograd.grad(xi.softmax(0), xi, before.log() - after.log())[0]
        adam.step()
    assert_close(objective.xi, xi.detach(), rtol=0, atol=1e-9)


def test_famo_leaves_a_domain_that_a_batch_lacks_where_it_was(tmp_path, histories, monkeypatch):
    objective, _ = setting(tmp_path, histories, FamoConfig(**TINY, weight_decay=0.0))
    Given(objective, monkeypatch).step([2.0, 0.0, 2.0], [1.5, 0.0, 1.9])
    assert objective.xi[1] == 0
    assert objective.xi[0] < 0 < objective.xi[2]


def test_famo_compares_under_the_same_dropout(tmp_path, histories):
    """A step that changes nothing shows no progress."""
    objective, (batch, *_) = setting(tmp_path, histories, FamoConfig(**{**TINY, "dropout": 0.5}))
    objective.train()
    losses = objective(batch, ALONE)
    objective.after_step(batch, ALONE)
    assert (objective.xi == 0).all()
    assert objective(batch, ALONE).total != losses.total


def slow_pcgrad(gradients, order):
    """Algorithm 1, each gradient against the others in the order given for it."""
    total = torch.zeros_like(gradients[0])
    for i, own in enumerate(gradients):
        projected = own.clone()
        for j in order[i]:
            if j != i and projected @ gradients[j] < 0:
                projected -= (projected @ gradients[j]) / (gradients[j] @ gradients[j]) * gradients[j]
        total += projected
    return total


def test_pcgrad_descends_the_sum_of_the_projected_gradients(tmp_path, histories):
    objective, batches = setting(tmp_path, histories, PCGradConfig(**TINY))
    conflicts = 0
    for number, batch in enumerate(batches):
        present = [mean for mean in means(objective, batch) if mean is not None]
        gradients = torch.stack([gradient(mean, objective) for mean in present])
        if len(present) < 3:
            continue
        torch.manual_seed(number)
        order = [torch.randperm(3).tolist() for _ in range(3)]
        torch.manual_seed(number)
        losses = objective(batch, ALONE)
        ours = 3 * gradient(losses.share, objective)
        assert_close(ours, slow_pcgrad(gradients, order), rtol=0, atol=1e-9)
        torch.manual_seed(number)
        assert_close(ours, PCGrad()(gradients), rtol=0, atol=1e-9)
        conflicts += int((gradients @ gradients.T < 0).any())
    assert conflicts


def test_pcgrad_without_torchjd_says_what_to_install(tmp_path, histories, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(WorkFailed, match="pip install torchjd"):
        setting(tmp_path, histories, PCGradConfig(**TINY))


@torch.no_grad()
def slow_losses(objective, batch, visible):
    """Mean loss of each domain's targets from histories with the events of visible domains only."""
    slow, found = SlowReader(objective.network, heads=2), [[], [], []]
    vectors = slow.p["encoder.item_embedding.weight"]
    for n in range(len(batch.target)):
        start, *items = inputs_of(batch.cross, int(batch.cross_slot[n]))
        domain = int(batch.domain[n])
        kept = [item for item in items if any(FIRST[d] <= item < FIRST[d + 1] for d in visible)]
        state = slow.causal([start, *kept])[-1]
        scores = vectors[FIRST[domain] : FIRST[domain + 1]] @ state
        found[domain].append(float(torch.log(torch.exp(scores - vectors[batch.target[n]] @ state).sum())))
    return [sum(losses) / len(losses) if losses else 0.0 for losses in found]


def test_contributions_are_the_shapley_values_of_predictions_from_visible_domains_alone(tmp_path, histories):
    objective, (batch, *_) = setting(tmp_path, histories, ShapleyConfig(**TINY, gap_momentum=0.0))
    by_coalition = [
        slow_losses(objective, batch, [d for d in range(3) if coalition >> d & 1]) for coalition in range(8)
    ]
    expected = transfers(torch.tensor(by_coalition, dtype=torch.float64))
    losses = objective(batch, ALONE)
    assert all(count > 0 for count in batch.targets_per_domain)
    contribution = objective.per_domain()["contribution"]
    assert contribution == pytest.approx((expected.sum(0) / 2).tolist(), abs=1e-9)
    most = max(range(3), key=lambda d: contribution[d])
    assert int(losses.per_domain["weight"].argmax()) == most
    assert float(losses.per_domain["weight"].mean()) == pytest.approx(1)


def test_contributions_are_measured_without_dropout_and_leave_the_network_training(tmp_path, histories):
    found = []
    for number, dropout in enumerate((0.0, 0.5)):
        config = ShapleyConfig(**{**TINY, "dropout": dropout})
        objective, (batch, *_) = setting(tmp_path / str(number), histories, config)
        objective.train()
        objective(batch, ALONE)
        assert objective.network.training
        found.append(objective.per_domain()["contribution"])
    assert found[0] == found[1]


def test_contributions_are_measured_every_so_many_steps(tmp_path, histories):
    objective, (batch, *_) = setting(tmp_path, histories, ShapleyConfig(**TINY, every_steps=3))
    seen = []
    for _ in range(7):
        objective(batch, ALONE)
        seen.append(objective.per_domain()["contribution"])
    assert seen[0] == seen[1] == seen[2] != seen[3]
    assert seen[3] == seen[4] == seen[5] != seen[6]


def test_a_domain_without_targets_is_nobodys_receiver_but_may_still_give(tmp_path):
    """C has no targets: A's contribution is to B alone."""
    objective, (batch,) = setting(tmp_path, [[1, 2, 6, 3], [7, 3, 8]], ShapleyConfig(**TINY, gap_momentum=0.0))
    objective(batch, ALONE)
    found = transfers(
        torch.tensor([slow_losses(objective, batch, [d for d in range(3) if c >> d & 1]) for c in range(8)])
    )
    expected = [found[1, 0], found[0, 1], (found[0, 2] + found[1, 2]) / 2]
    assert objective.per_domain()["contribution"] == pytest.approx([float(value) for value in expected], abs=1e-6)


def test_more_domains_than_coalitions_allow_are_refused():
    ShapleyConfig().network((3,) * 5)
    with pytest.raises(WrongUse, match="at most 5 domains; the dataset has 6"):
        ShapleyConfig().network((3,) * 6)


def test_weights_learn_from_steps_in_the_real_loop(tmp_path, histories):
    """One preset of each that has a state: the state moves."""
    from training.loop import Training

    dataset = write_dataset(tmp_path / "d", SIZES, histories, validation=[[1], [6], [12]])
    for number, config in enumerate((FamoConfig(**TINY), ShapleyConfig(**TINY))):
        path = tmp_path / str(number)
        path.mkdir()
        run = Training(dataset, replace(config, epochs=2), path, ALONE, lambda _: None)
        before = run.objective.per_domain()["weight"]
        run.train()
        assert run.objective.per_domain()["weight"] != before
