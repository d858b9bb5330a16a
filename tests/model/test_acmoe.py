from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from model.acmoe import ACMoE, Tower
from model.config import SyNCRecConfig
from model.syncrec import build_syncrec
from model.transformer import may_attend
from tests.reference.network import lively
from tests.reference.packed import rows_of

SIZES = (5, 4, 3)
SINGLE_EXPERTS, EXPERTS = 2, 5
SOS = sum(SIZES) + 1


CONFIG = SyNCRecConfig(
    items_per_domain=SIZES,
    max_history=6,
    dim=8,
    heads=2,
    layers=2,
    experts=EXPERTS,
    single_experts=SINGLE_EXPERTS,
    dropout=0.0,
)


@pytest.fixture
def network():
    return lively(build_syncrec(CONFIG))


def both_tasks(network):
    """Outputs of both tasks over a row with three domains and one with a single domain and padding."""
    single, _ = rows_of([[([1, 3], 0), ([6], 1), ([10], 2)], [([2, 4, 1], 0)]], slots=7, start=SOS)
    cross, _ = rows_of([[([1, 6, 3, 10], 0)], [([2, 4, 1], 0)]], slots=7, start=SOS)
    # The targets, sorted by domain: two rows of domain 0, then domains 1 and 2.
    single_slot, cross_slot = torch.tensor([1, 2, 13, 4, 6]), torch.tensor([3, 4, 13, 5, 6])
    return network(single, cross, single_slot, cross_slot, [3, 1, 1])


def gradients(loss, network):
    """Parameter name -> gradient; zeros where the loss does not depend on it at all."""
    names, parameters = zip(*network.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if gradient is None else gradient
        for name, parameter, gradient in zip(names, parameters, found, strict=True)
    }


def norm_of(found, prefix):
    chosen = [gradient for name, gradient in found.items() if name.startswith(prefix)]
    assert chosen, f"no parameter is named {prefix}…"
    return sum(float(gradient.abs().sum()) for gradient in chosen)


SDSR_TEACHES = [
    "acmoe.experts.0.layers.0.",
    "acmoe.experts.0.layers.1.",
    "acmoe.experts.1.layers.0.",
    "acmoe.experts.1.layers.1.",
    "acmoe.single_gates",
    "single_towers.0.",
    "single_towers.1.",
    "single_towers.2.",
]
CDSR_TEACHES = [
    "acmoe.experts.2.layers.0.",
    "acmoe.experts.3.layers.0.",
    "acmoe.experts.4.layers.1.",
    "acmoe.cross_gate",
    "cross_tower.",
]
BOTH_TEACH = ["item_embedding", "domain_embedding", "position_embedding", "embedding_norm"]


def loss_of(out):
    # A sum of squares of a LayerNorm's output is constant, so weigh the entries.
    return (out * torch.arange(1.0, 1 + out.numel(), dtype=out.dtype).view_as(out)).sum()


@pytest.mark.parametrize("part", SDSR_TEACHES + BOTH_TEACH)
def test_the_sdsr_loss_teaches(network, part):
    assert norm_of(gradients(loss_of(both_tasks(network).single), network), part) > 1e-6


@pytest.mark.parametrize("part", CDSR_TEACHES + BOTH_TEACH)
def test_the_cdsr_loss_teaches(network, part):
    assert norm_of(gradients(loss_of(both_tasks(network).cross), network), part) > 1e-6


@pytest.mark.parametrize("part", [*(f"acmoe.experts.{k}." for k in range(2, 5)), "acmoe.cross_gate", "cross_tower."])
def test_the_sdsr_loss_does_not_reach(network, part):
    assert norm_of(gradients(loss_of(both_tasks(network).single), network), part) == 0


@pytest.mark.parametrize(
    "part",
    [*(f"acmoe.experts.{k}." for k in range(2)), "acmoe.single_gates", *(f"single_towers.{d}." for d in range(3))],
)
def test_the_cdsr_loss_does_not_reach(network, part):
    assert norm_of(gradients(loss_of(both_tasks(network).cross), network), part) == 0


def test_all_parameters_are_in_one_of_the_lists_above(network):
    known = [*SDSR_TEACHES, *CDSR_TEACHES, *BOTH_TEACH, *(f"acmoe.experts.{k}." for k in range(EXPERTS))]
    assert [name for name, _ in network.named_parameters() if not name.startswith(tuple(known))] == []


def test_a_domain_teaches_its_own_gate_and_tower_only(network):
    out = both_tasks(network).single
    found = gradients(loss_of(out[3:4]), network)  # the target of domain 1
    blocks = found["acmoe.single_gates.weight"].view(3, EXPERTS, -1).abs().sum((1, 2))
    assert blocks[1] > 0
    assert blocks[0] == blocks[2] == 0
    assert norm_of(found, "single_towers.1.") > 0
    assert norm_of(found, "single_towers.0.") == norm_of(found, "single_towers.2.") == 0


def test_stop_gradient_off_changes_no_forward_value_and_lets_both_tasks_teach_all_experts(network):
    without = lively(build_syncrec(replace(CONFIG, stop_gradient=False)), seed=1)
    without.load_state_dict(network.state_dict())  # the same weights: a checkpoint fits both
    ours, theirs = both_tasks(network), both_tasks(without)
    assert torch.equal(ours.single, theirs.single)
    assert torch.equal(ours.cross, theirs.cross)
    for task in theirs:
        found = gradients(loss_of(task), without)
        assert all(norm_of(found, f"acmoe.experts.{k}.") > 1e-6 for k in range(EXPERTS))


def test_the_gradients_are_those_of_a_detached_output(network):
    """no_grad around an expert is a way to save memory, not another method."""

    def detached_mix(embedded, attend, gate, learners, last):
        bias = torch.zeros(attend.shape, dtype=embedded.dtype).masked_fill(~attend, float("-inf")).unsqueeze(1)
        outs = torch.stack([expert(embedded, bias, last) for expert in network.acmoe.experts], 2)
        learns_here = torch.tensor([k in learners for k in range(EXPERTS)])[:, None]
        return torch.einsum("bse,bsed->bsd", gate, torch.where(learns_here, outs, outs.detach()))

    ours = both_tasks(network)
    ours = gradients(loss_of(ours.single) + 2 * loss_of(ours.cross), network)
    network.acmoe._mix = detached_mix
    theirs = both_tasks(network)
    theirs = gradients(loss_of(theirs.single) + 2 * loss_of(theirs.cross), network)
    for name, gradient in ours.items():
        assert_close(gradient, theirs[name], rtol=1e-10, atol=1e-10)


def test_no_two_experts_gates_or_towers_share_storage(network):
    def storages(module):
        return {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}

    parts = [*network.acmoe.experts, *network.single_towers, network.cross_tower, network.acmoe.cross_gate]
    parts.append(network.acmoe.single_gates)
    for one, other in combinations(parts, 2):
        assert not storages(one) & storages(other)


def test_experts_and_towers_start_from_different_weights():
    config = SyNCRecConfig(SIZES, 6, dim=8, heads=2, layers=1, experts=3, single_experts=1, dropout=0.0)
    network = build_syncrec(config)
    for one, other in combinations(network.acmoe.experts, 2):
        assert not torch.equal(one.layers[0].query.weight, other.layers[0].query.weight)
    for one, other in combinations([*network.single_towers, network.cross_tower], 2):
        assert not torch.equal(one.widen.weight, other.widen.weight)


def test_a_step_of_sdsr_alone_leaves_the_other_experts_as_they_were_to_the_bit(network):
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
    loss_of(both_tasks(network).single).backward()
    optimizer.step()
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert any(name.startswith("acmoe.experts.0.") for name in changed)
    untouched = ("acmoe.experts.2.", "acmoe.experts.3.", "acmoe.experts.4.", "acmoe.cross_gate", "cross_tower.")
    assert [name for name in changed if name.startswith(untouched)] == []


@pytest.mark.parametrize("order", [[1, 0, 2, 3, 4], [0, 1, 4, 2, 3], [1, 0, 3, 4, 2]])
def test_experts_of_a_group_may_change_places_together_with_their_gate_columns(network, order):
    before = both_tasks(network)
    acmoe = network.acmoe
    acmoe.experts = nn.ModuleList(acmoe.experts[k] for k in order)
    with torch.no_grad():
        for gate in (acmoe.single_gates, acmoe.cross_gate):
            for parameter in (gate.weight, gate.bias):
                parameter.copy_(parameter.unflatten(0, (-1, EXPERTS))[:, order].flatten(0, 1))
    after = both_tasks(network)
    assert_close(after.single, before.single, rtol=1e-12, atol=1e-12)
    assert_close(after.cross, before.cross, rtol=1e-12, atol=1e-12)


def test_experts_of_different_groups_may_not_change_places(network):
    """Values would stay, but who learns from whom would not: the groups are real."""
    acmoe = network.acmoe
    acmoe.experts = nn.ModuleList(acmoe.experts[k] for k in [2, 1, 0, 3, 4])
    found = gradients(loss_of(both_tasks(network).single), network)
    assert norm_of(found, "acmoe.experts.0.") > 0  # the former expert 2
    assert norm_of(found, "acmoe.experts.2.") == 0


class Constant(nn.Module):
    """An expert that answers the same vector everywhere."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, states, _bias, last=None):
        return torch.full_like(states if last is None else states[:, -last:], self.value)


def constant_mixture(values):
    torch.manual_seed(0)
    acmoe = ACMoE([Constant(value) for value in values], single_experts=1, domains=3, dim=8).double()
    nn.init.normal_(acmoe.single_gates.weight, std=2)
    nn.init.normal_(acmoe.cross_gate.weight, std=2)
    return acmoe


SEGMENT = torch.tensor([[0, 0, 1, 1, 2], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
DOMAIN = torch.tensor([[0, 0, 2, 2, 1], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])


def test_gates_sum_to_one_in_every_place():
    acmoe, embedded = constant_mixture([1.0, 1.0, 1.0]), torch.randn(3, 5, 8, dtype=torch.float64)
    attend = may_attend(SEGMENT)
    for mixed in (acmoe.single(embedded, attend, DOMAIN), acmoe.cross(embedded, attend)):
        assert_close(mixed, torch.ones_like(mixed), rtol=0, atol=1e-12)


def test_gates_are_a_softmax_of_the_mean_embedding_so_far():
    acmoe, embedded = constant_mixture([1.0, 10.0, 100.0]), torch.randn(3, 5, 8, dtype=torch.float64)
    attend, value = may_attend(SEGMENT), torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    single, cross = acmoe.single(embedded, attend, DOMAIN), acmoe.cross(embedded, attend)
    for row in range(3):
        for t in range(5):
            own = [s for s in range(t + 1) if SEGMENT[row, s] == SEGMENT[row, t]]
            mean = embedded[row, own].mean(0)
            d = int(DOMAIN[row, t])
            rows = slice(3 * d, 3 * d + 3)
            of_domain = torch.softmax(acmoe.single_gates.weight[rows] @ mean + acmoe.single_gates.bias[rows], 0)
            assert_close(single[row, t, 0], of_domain @ value)
            of_cross = torch.softmax(acmoe.cross_gate.weight @ mean + acmoe.cross_gate.bias, 0)
            assert_close(cross[row, t, 0], of_cross @ value)


def test_a_tower_is_a_feed_forward_net_with_residual_and_norm():
    torch.manual_seed(0)
    tower, mixed = Tower(8, dropout=0.5).double().eval(), torch.randn(3, 8, dtype=torch.float64)
    wide = mixed @ tower.widen.weight.T + tower.widen.bias
    wide = wide * 0.5 * (1 + torch.erf(wide / 2**0.5))
    summed = mixed + wide @ tower.narrow.weight.T + tower.narrow.bias
    centred = summed - summed.mean(-1, keepdim=True)
    assert wide.shape[-1] == 4 * 8
    assert_close(tower(mixed), centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt())
