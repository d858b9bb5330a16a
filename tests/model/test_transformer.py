import pytest
import torch
from torch.testing import assert_close

from model.transformer import Encoder, may_attend

# A full row of two sequences, a row with padding in front and behind, and an empty one.
SEGMENTS = torch.tensor([[1, 1, 1, 2, 2, 2], [0, 0, 3, 3, 4, 0], [0, 0, 0, 0, 0, 0]])


@pytest.fixture
def encoder():
    torch.manual_seed(0)
    encoder = Encoder(dim=8, heads=2, layers=2, dropout=0.0).double()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder


def bias_of(attend):
    return torch.zeros(attend.shape, dtype=torch.float64).masked_fill(~attend, float("-inf")).unsqueeze(1)


def test_a_position_may_look_at_its_own_sequence_up_to_itself():
    mask = may_attend(SEGMENTS)
    for row, segments in enumerate(SEGMENTS.tolist()):
        for query in range(6):
            for key in range(6):
                assert mask[row, query, key] == (segments[query] == segments[key] and key <= query)


def test_every_position_may_look_at_something_so_that_softmax_is_defined():
    assert may_attend(SEGMENTS).any(-1).all()


def test_the_last_positions_alone_are_those_of_the_whole(encoder):
    states, bias = torch.randn(3, 6, 8, dtype=torch.float64), bias_of(may_attend(SEGMENTS))
    whole = encoder(states, bias)
    for last in (1, 2, 6):
        assert_close(encoder(states, bias, last), whole[:, -last:], rtol=0, atol=1e-12)


def test_padding_in_a_mixed_batch_gives_no_nan_and_no_gradient_nan(encoder):
    states = torch.randn(3, 6, 8, dtype=torch.float64, requires_grad=True)
    out = encoder(states, bias_of(may_attend(SEGMENTS)))
    out[SEGMENTS > 0].sum().backward()
    assert out.isfinite().all()
    assert states.grad.isfinite().all()
    assert (states.grad[SEGMENTS == 0] == 0).all()


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    encoder = Encoder(dim=8, heads=2, layers=1, dropout=0.5)
    states, bias = torch.randn(1, 6, 8), bias_of(may_attend(SEGMENTS[:1])).float()
    assert not torch.equal(encoder(states, bias), encoder(states, bias))
    encoder.eval()
    assert torch.equal(encoder(states, bias), encoder(states, bias))
