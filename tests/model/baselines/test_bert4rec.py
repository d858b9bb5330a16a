import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from model.baselines.bert4rec import BERT4Rec, same_sequence
from model.config import NetworkSizes
from tests.reference.baselines import SlowReader, lively
from tests.reference.packed import rows_of

SIZES = (5, 4, 3)  # items 1-5, 6-9, 10-12
MASK = sum(SIZES) + 1
EXACT = {"rtol": 0, "atol": 1e-10}
HISTORIES = [[1, 6, 3, 7, 5, 10, 11, 9], [2], [], [4, 4, 4, 1], [12, 6, 6, 2, 10]]


@pytest.fixture(scope="module")
def network():
    return lively(BERT4Rec(NetworkSizes(SIZES, max_history=8, dim=8, heads=2, layers=2, dropout=0.3)))


@pytest.fixture(scope="module")
def slow(network):
    return SlowReader(network, heads=2)


def test_every_position_sees_its_own_sequence_and_no_other():
    segments = torch.tensor([[1, 1, 2, 0], [3, 4, 4, 4]])
    seen = same_sequence(segments)
    for row, segment in enumerate(segments.tolist()):
        for query in range(4):
            assert seen[row, query].tolist() == [other == segment[query] for other in segment]


def test_states_agree_with_the_slow_reader_in_packed_rows(network, slow):
    """`rows_of` puts the index of [mask] in front of each history: here it is one more masked event."""
    rows = [[([1, 6, 3], 0), ([2], 0)], [([12, 6, 2, 10], 0)], [([], 0), ([4, 4], 0)]]
    sequences, places = rows_of(rows, 8, MASK)
    states = network.encoder(sequences)
    for row, row_places, parts in zip(states, places, rows, strict=True):
        expected = torch.cat([slow.both_ways([MASK, *items]) for items, _ in parts])
        assert_close(row[row_places.start : row_places.stop], expected, **EXACT)


def test_at_the_end_a_history_is_read_with_a_mask_behind_it_and_no_start(network, slow):
    sequences, _ = rows_of([[(history, 0)] for history in HISTORIES], 9, MASK)
    for domain in range(3):
        found = network.at_end(sequences, domain)
        for history, answer in zip(HISTORIES, found, strict=True):
            state = slow.both_ways([*history, MASK])[-1]
            projected = F.gelu(network.projection.weight @ state + network.projection.bias)
            assert_close(answer, torch.cat([projected, torch.ones(1, dtype=torch.float64)]), **EXACT)


def test_scores_are_products_with_the_item_embeddings_and_the_items_biases(network):
    states = torch.randn(3, 8, dtype=torch.float64)
    scores = network.answer(states, 0) @ network.item_vectors().T
    projected = F.gelu(network.projection(states))
    assert_close(scores, projected @ network.encoder.item_embedding.weight.T + network.bias, **EXACT)
