"""MMoE and PLE: who reads which experts, and whom each domain teaches."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from model.baselines.head import DomainHead
from model.baselines.mmoe import MMoE
from model.baselines.ple import PLE
from model.config import NetworkSizes
from tests.reference.baselines import SlowReader, lively
from tests.reference.packed import rows_of

SIZES = (5, 4, 3)  # items 1-5, 6-9, 10-12
SOS = sum(SIZES) + 1
EXACT = {"rtol": 0, "atol": 1e-10}
HISTORIES = [[1, 6, 3, 7, 5, 10, 11, 9], [2], [], [4, 4, 4, 1], [12, 6, 6, 2, 10]]


def sizes(dropout=0.3):
    return NetworkSizes(SIZES, max_history=8, dim=8, heads=2, layers=1, dropout=dropout)


NETWORKS = {
    "mmoe": lambda: lively(MMoE(sizes(), experts=3)),
    "ple": lambda: lively(PLE(sizes(), shared_experts=2, domain_experts=2)),
}
# Names of the experts that a domain reads, in the order of its gate.
EXPERTS = {
    "mmoe": lambda _: [f"experts.{k}" for k in range(3)],
    "ple": lambda domain: [f"own.{domain}.{k}" for k in range(2)] + [f"shared.{k}" for k in range(2)],
}


@pytest.fixture(params=NETWORKS)
def named(request):
    return request.param, NETWORKS[request.param]()


def inputs():
    return rows_of([[(history, 0)] for history in HISTORIES], 9, SOS)[0]


def test_answers_agree_with_the_slow_formula(named):
    name, network = named
    slow = SlowReader(network, heads=2)
    for domain in range(3):
        found = network.at_end(inputs(), domain)
        for history, answer in zip(HISTORIES, found, strict=True):
            state = slow.causal([SOS, *history])[-1]
            mixed = slow.mixture(state, EXPERTS[name](domain), f"heads.{domain}.gate")
            assert_close(answer, slow.tower(mixed, f"heads.{domain}.tower"), **EXACT)


def test_targets_are_answered_by_the_head_of_their_own_domain(named):
    _, network = named
    sequences = inputs()
    slot = torch.tensor([1 * 9 + 8, 3 * 9 + 7, 0, 8, 4 * 9 + 8])
    states = network.encoder(sequences).flatten(0, 1)[slot]
    found = network.at_slots(sequences, slot, [2, 0, 3])
    assert_close(found[:2], network.answer(states[:2], 0), **EXACT)
    assert_close(found[2:], network.answer(states[2:], 2), **EXACT)
    assert (network.answer(states[:2], 1) - found[:2]).abs().max() > 1e-3


def test_the_shares_of_a_gate_sum_to_one():
    """Experts that all answer the same cannot be told from one."""

    class Same(nn.Module):
        def forward(self, states):
            return 2 * states

    head = lively(DomainHead(3, 8, 0.0))
    states = torch.randn(5, 8, dtype=torch.float64)
    assert_close(head(states, [Same()] * 3), head.tower(2 * states), **EXACT)


def gradients(network, domain):
    """Summed absolute gradient of every parameter after a loss of one domain's targets alone."""
    network.zero_grad()
    network.at_end(inputs(), domain).square().sum().backward()
    return {
        name: 0.0 if parameter.grad is None else float(parameter.grad.abs().sum())
        for name, parameter in network.named_parameters()
    }


@pytest.mark.parametrize("domain", range(3))
def test_a_domain_teaches_the_reader_its_own_head_and_no_other_head(named, domain):
    _, network = named
    taught = gradients(network, domain)
    for name, size in taught.items():
        if name.startswith("heads."):
            assert (size > 0) == name.startswith(f"heads.{domain}."), name
    assert taught["encoder.item_embedding.weight"] > 0


@pytest.mark.parametrize("domain", range(3))
def test_shared_experts_learn_from_every_domain_and_specific_ones_from_their_own_alone(named, domain):
    _, network = named
    for name, size in gradients(network, domain).items():
        if name.startswith(("experts.", "shared.")):
            assert size > 0, name
        if name.startswith("own."):
            assert (size > 0) == name.startswith(f"own.{domain}."), name


def test_no_two_experts_or_heads_share_storage(named):
    _, network = named
    places = [parameter.untyped_storage().data_ptr() for parameter in network.parameters()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("future", [[2, 2, 2], [], [4, 9, 12, 1, 6]])
def test_no_answer_sees_the_future(named, future):
    _, network = named
    past = [1, 6, 3]
    (before, place), (after, other) = (rows_of([[(past + f, 0)]], 9, SOS) for f in ([5, 10], future))
    for domain in range(3):
        one = network.at_slots(before, torch.tensor(place[0][:4]), [4 * (d == domain) for d in range(3)])
        two = network.at_slots(after, torch.tensor(other[0][:4]), [4 * (d == domain) for d in range(3)])
        assert_close(one, two, **EXACT)
