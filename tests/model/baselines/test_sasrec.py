import math

import pytest
import torch
from torch.testing import assert_close

from model.baselines.sasrec import SASRec, bce_loss
from model.config import NetworkSizes
from model.syncrec import Sequences
from tests.reference.baselines import SlowReader, lively
from tests.reference.packed import rows_of

SIZES = (5, 4, 3)  # items 1-5, 6-9, 10-12
SOS = sum(SIZES) + 1
EXACT = {"rtol": 0, "atol": 1e-10}
HISTORIES = [[1, 6, 3, 7, 5, 10, 11, 9], [2], [], [4, 4, 4, 1], [12, 6, 6, 2, 10]]


@pytest.fixture(scope="module")
def network():
    return lively(SASRec(NetworkSizes(SIZES, max_history=8, dim=8, heads=2, layers=2, dropout=0.3)))


@pytest.fixture(scope="module")
def slow(network):
    return SlowReader(network, heads=2)


def states_of(network, rows, slots=9):
    """States at every position of packed histories, a list of [tokens, dim] by row."""
    sequences, places = rows_of([[(history, 0) for history in row] for row in rows], slots, SOS)
    states = network.encoder(sequences)
    return [states[row, place.start : place.stop] for row, place in enumerate(places)]


def test_states_agree_with_the_slow_reader_at_every_position_of_a_mixed_batch(network, slow):
    for history, states in zip(HISTORIES, states_of(network, [[history] for history in HISTORIES]), strict=True):
        assert_close(states, slow.causal([SOS, *history]), **EXACT)


def test_packing_equals_one_sequence_per_row(network):
    together = torch.cat(states_of(network, [[[1, 6, 3], [2], [], [12, 6]], [[4, 4]]], slots=12))
    apart = torch.cat(states_of(network, [[[1, 6, 3]], [[2]], [[]], [[12, 6]], [[4, 4]]]))
    assert_close(together, apart, **EXACT)


@pytest.mark.parametrize("future", [[2, 2, 2], [], [4, 9, 12, 1, 6]])
def test_no_state_sees_the_future(network, future):
    past = [1, 6, 3]
    (before,), (after,) = states_of(network, [[[*past, 5, 10]]]), states_of(network, [[past + future]])
    assert_close(after[:4], before[:4], **EXACT)


def test_what_stands_in_a_padding_slot_is_never_read(network):
    sequences, _ = rows_of([[([1, 6, 3], 0)], [([], 0)]], 9, SOS)
    real = sequences.segment > 0
    dirty = Sequences(*(torch.where(real, values, 3) for values in sequences[:2]), *sequences[2:])
    assert_close(network.encoder(dirty)[real], network.encoder(sequences)[real], **EXACT)


def test_at_slots_answers_in_the_order_of_the_targets(network):
    sequences, _ = rows_of([[([1, 6, 3], 0)], [([2, 9], 0)]], 4, SOS)
    slot = torch.tensor([7, 0, 2, 6])
    states = network.encoder(sequences).flatten(0, 1)
    assert torch.equal(network.at_slots(sequences, slot, [1, 3, 0]), states[slot])


def test_at_end_is_the_last_position_for_every_domain(network):
    sequences, _ = rows_of([[(history, 0)] for history in HISTORIES], 9, SOS)
    for domain in range(3):
        assert_close(network.at_end(sequences, domain), network.encoder(sequences)[:, -1], **EXACT)


def test_scores_are_products_with_the_item_embeddings_whose_padding_never_learns():
    network = SASRec(NetworkSizes(SIZES, max_history=4, dim=8, heads=2, layers=1, dropout=0.0))
    vectors = network.item_vectors()
    assert vectors.shape == (SOS + 1, 8)
    assert (vectors[0] == 0).all()
    sequences, _ = rows_of([[([3, 9], 0)]], 5, SOS)
    network.at_end(sequences, 0)[0, 0].backward()
    assert (vectors.grad[0] == 0).all()
    assert (vectors.grad[[3, 9, SOS]].abs().sum(1) > 0).all()


def test_weights_start_at_a_standard_deviation_of_two_hundredths():
    network = SASRec(NetworkSizes((400,), max_history=4, dim=64, heads=1, layers=1, dropout=0.0))
    layer = network.encoder.layers.layers[0]
    for weight in (network.item_vectors()[1:], layer.widen.weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert (layer.widen.bias == 0).all()


def test_bce_is_the_cross_entropy_of_both_scores():
    positive, negative = torch.tensor([0.0, 1.5, -2.0]), torch.tensor([0.0, -0.5, 3.0])
    expected = [
        -math.log(1 / (1 + math.exp(-p))) - math.log(1 - 1 / (1 + math.exp(-n)))
        for p, n in zip(positive.tolist(), negative.tolist(), strict=True)
    ]
    assert bce_loss(positive, negative).tolist() == pytest.approx(expected)


def test_bce_neither_saturates_nor_overflows():
    positive, negative = torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([0.0, -1e4])
    losses = bce_loss(positive, negative)
    assert losses.tolist() == pytest.approx([1e4 + math.log(2), 0])
    losses.sum().backward()
    assert positive.grad.tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"items_per_domain": ()}, "items_per_domain"),
        ({"items_per_domain": (3, 0)}, "items_per_domain"),
        ({"max_history": 0}, "max_history"),
        ({"layers": 0}, "layers"),
        ({"heads": 3}, "heads"),
        ({"dropout": 1.0}, "dropout"),
        ({"attention_dropout": -0.1}, "attention_dropout"),
    ],
)
def test_sizes_without_sense_are_refused_by_name(change, field):
    sizes = {"items_per_domain": SIZES, "max_history": 4, "dim": 8, "heads": 2, "layers": 1, "dropout": 0.0}
    with pytest.raises(ValueError, match=f"^{field}:"):
        NetworkSizes(**{**sizes, **change})
