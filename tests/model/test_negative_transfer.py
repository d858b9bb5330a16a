import math

import pytest
import torch
from torch.testing import assert_close

from model.negative_transfer import NegativeTransferGap
from tests.reference.losses import gap_weights


def gap(domains=3, momentum=0.9, temperature=1.0, floor=0.0):
    return NegativeTransferGap(domains, momentum, temperature, floor).double()


def doubles(*values):
    return torch.tensor(values, dtype=torch.float64)


def take(module, single, cross, count=(1, 1, 1)):
    return module.update(doubles(*single), doubles(*cross), doubles(*count))


def with_average(module, *values):
    module.average.copy_(doubles(*values))
    return module


@pytest.mark.parametrize(("temperature", "printed"), [(1.0, (1.2053, 0.9868, 0.8079)), (0.1, (2.6004, 0.3519, 0.0476))])
def test_weights_are_the_domains_share_of_a_softmax(temperature, printed):
    average = (0.2, 0.0, -0.2)
    weights = with_average(gap(temperature=temperature), *average).weights()
    raised = [math.exp(value / temperature) for value in average]
    assert_close(weights, doubles(*[3 * value / sum(raised) for value in raised]))
    assert_close(weights, doubles(*printed), rtol=0, atol=5e-5)


@pytest.mark.parametrize("floor", [0.0, 0.05, 0.5, 1.0])
def test_weights_have_mean_one_and_never_fall_below_the_floor(floor):
    weights = with_average(gap(floor=floor, temperature=0.01), 0.5, 0.0, -2.0).weights()
    assert_close(weights.mean(), doubles(1)[0])
    assert weights.min() >= floor - 1e-12
    assert_close(weights, doubles(*gap_weights([0.5, 0.0, -2.0], 0.01, floor)))


def test_equal_gaps_give_every_domain_weight_one():
    for value in (0.0, -0.3, 7.0):
        assert_close(with_average(gap(floor=0.1), value, value, value).weights(), doubles(1, 1, 1))


def test_one_domain_always_has_weight_one():
    for value in (-5.0, 0.0, 3.0):
        assert_close(with_average(gap(domains=1, floor=0.05), value).weights(), doubles(1))


def test_the_gap_is_mean_sdsr_loss_minus_mean_cdsr_loss():
    phi = take(gap(), single=(6, 1, 0), cross=(2, 3, 0), count=(4, 2, 1))
    assert_close(phi, doubles((6 - 2) / 4, (1 - 3) / 2, 0))


def test_the_domain_in_which_only_cdsr_is_worse_gets_the_smallest_weight():
    module = gap()
    take(module, single=(2, 2, 2), cross=(2, 2.5, 2))
    weights = module.weights()
    assert weights.argmin() == 1
    assert weights[1] < weights[0] == weights[2]


def test_a_large_domain_does_not_outweigh_a_small_one_with_a_larger_gap():
    """Means, not sums: 1000 targets with a gap of -0.01 each matter less than 10 with -0.1 each."""
    module = gap(domains=2)
    module.update(doubles(0, 0), doubles(1000 * 0.01, 10 * 0.1), doubles(1000, 10))
    assert module.weights().argmin() == 1


def test_three_equal_gaps_are_averaged_with_momentum():
    module = gap()
    for _ in range(3):
        take(module, single=(0, 0, 0), cross=(0.2, 0, 0))
    assert_close(module.average, doubles(-0.2 * (1 - 0.9**3), 0, 0))
    assert float(module.average[0]) == pytest.approx(-0.0542)


def test_without_momentum_the_newest_gap_counts_alone():
    module = gap(momentum=0.0)
    take(module, (9, 9, 9), (0, 0, 0))
    take(module, (1, 2, 3), (0, 0, 0))
    assert_close(module.average, doubles(1, 2, 3))


def test_a_domain_without_targets_keeps_its_average_and_has_gap_zero():
    module = with_average(gap(), 0.3, -0.4, 0.5)
    phi = take(module, single=(1, 0, 2), cross=(0, 0, 0), count=(1, 0, 2))
    assert_close(phi, doubles(1, 0, 1))
    assert_close(module.average, doubles(0.9 * 0.3 + 0.1 * 1, -0.4, 0.9 * 0.5 + 0.1 * 1))


def test_neither_the_state_nor_the_weights_hold_a_graph():
    module = gap()
    single = doubles(1, 2, 3).requires_grad_()
    phi = module.update(single, single * 2, doubles(1, 1, 1))
    assert not phi.requires_grad
    assert not module.average.requires_grad
    assert not module.weights().requires_grad


def test_saved_and_loaded_it_continues_identically():
    one, other = gap(floor=0.05), gap(floor=0.05)
    take(one, (1, 2, 3), (3, 2, 1))
    other.load_state_dict(one.state_dict())
    for module in (one, other):
        take(module, (5, 1, 1), (1, 1, 1), count=(2, 0, 1))
    assert torch.equal(one.average, other.average)
    assert torch.equal(one.weights(), other.weights())


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("gap_momentum", (1.0, 1.0, 0.0)),
        ("gap_momentum", (-0.1, 1.0, 0.0)),
        ("gap_momentum", (math.nan, 1.0, 0.0)),
        ("temperature", (0.9, 0.0, 0.0)),
        ("temperature", (0.9, math.nan, 0.0)),
        ("weight_floor", (0.9, 1.0, 1.1)),
        ("weight_floor", (0.9, 1.0, -0.1)),
    ],
)
def test_a_setting_that_reverses_or_breaks_the_weights_is_refused_by_name(named, arguments):
    with pytest.raises(ValueError, match=f"^{named}:"):
        NegativeTransferGap(3, *arguments)
