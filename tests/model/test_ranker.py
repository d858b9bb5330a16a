import numpy as np
import pytest
import torch

from model.config import SyNCRecConfig
from model.ranker import Ranker
from model.syncrec import build_syncrec
from tests.reference.network import SlowNetwork, lively
from tests.reference.ranks import best

SIZES = (5, 12, 3)
SOS = sum(SIZES) + 1
MAX_K = 7  # more than two of the domains have
CANDIDATES = [range(1, 6), range(6, 18), range(18, 21)]
HISTORIES = [[1, 7, 18], [], [20, 2, 9, 9]]
EXCLUDE = [[1, 7, 18, 0], [0, 0, 0, 0], [3, 6, 19, 20]]


@pytest.fixture(scope="module")
def network():
    config = SyNCRecConfig(SIZES, max_history=4, dim=8, heads=2, layers=1, experts=3, single_experts=1, dropout=0.0)
    return lively(build_syncrec(config))


def encoded():
    rows = torch.zeros(3, 5, dtype=torch.int32)
    for row, history in zip(rows, HISTORIES, strict=True):
        row[4 - len(history) :] = torch.tensor([SOS, *history])
    return rows


def ask(network, exclude, restricted, include, k):
    ranker = Ranker(network, SIZES, MAX_K).double().eval()
    with torch.inference_mode():
        scores, index = ranker(
            encoded(),
            torch.tensor(exclude, dtype=torch.int32),
            torch.tensor(restricted),
            torch.tensor(include, dtype=torch.int32),
            torch.tensor(k),
        )
    return scores.numpy(), index.numpy()


@torch.no_grad()
def brute_force(network, exclude, restricted, include, k):
    """Scores of the slow network, every rule spelled out."""
    slow = SlowNetwork(network, SIZES, heads=2, single_experts=1)
    scores, index = np.full((3, 3, k), -np.inf), np.zeros((3, 3, k), dtype=np.int32)
    for row, history in enumerate(HISTORIES):
        user = slow.cross(history)[-1]
        of_item = {item: float(user @ network.item_embedding.weight[item]) for item in range(1, SOS)}
        for d, items in enumerate(CANDIDATES):
            allowed = [
                item for item in items if item not in exclude[row] and (not restricted[row][d] or item in include[row])
            ]
            for place, (score, item) in enumerate(best(of_item, allowed, k)):
                scores[row, d, place], index[row, d, place] = score, item
    return scores, index


NONE, OPEN = [[0]] * 3, [[False] * 3] * 3
# Restricted in none, one and all domains; `include` names items of other domains and excluded ones too.
RESTRICTED = [[False, False, False], [False, True, False], [True, True, True]]
INCLUDE = [[1, 2, 3], [6, 17, 2], [3, 4, 8]]


@pytest.mark.parametrize("k", [1, 3, MAX_K])
@pytest.mark.parametrize(
    ("exclude", "restricted", "include"),
    [(NONE, OPEN, NONE), (EXCLUDE, OPEN, NONE), (NONE, RESTRICTED, INCLUDE), (EXCLUDE, RESTRICTED, INCLUDE)],
    ids=["open", "excluded", "restricted", "both"],
)
def test_it_answers_what_a_loop_over_all_items_answers(network, exclude, restricted, include, k):
    scores, index = ask(network, exclude, restricted, include, k)
    wanted_scores, wanted_index = brute_force(network, exclude, restricted, include, k)
    np.testing.assert_array_equal(index, wanted_index)
    np.testing.assert_allclose(scores, wanted_scores, rtol=1e-10, atol=1e-10)


def test_a_domain_smaller_than_k_fills_up_with_minus_infinity_and_0(network):
    scores, index = ask(network, NONE, OPEN, NONE, MAX_K)
    assert (index[:, 2, 3:] == 0).all()
    assert np.isneginf(scores[:, 2, 3:]).all()
    assert (index[:, 2, :3] > 0).all()


def test_restricted_to_nothing_it_answers_nothing(network):
    scores, index = ask(network, NONE, [[True] * 3] * 3, NONE, 3)
    assert (index == 0).all()
    assert np.isneginf(scores).all()


def test_scores_fall_and_padding_and_sos_are_never_answered(network):
    scores, index = ask(network, NONE, OPEN, NONE, MAX_K)
    finite = np.isfinite(scores)
    assert (scores[..., 1:] <= scores[..., :-1]).all()
    assert index.max() < SOS
    assert (index[finite] > 0).all()


def test_more_than_max_k_is_refused(network):
    with pytest.raises(RuntimeError):
        ask(network, NONE, OPEN, NONE, MAX_K + 1)


def test_the_parts_that_only_training_needs_do_not_matter(network):
    before = ask(network, NONE, OPEN, NONE, 3)
    kept = {name: p.clone() for name, p in network.state_dict().items()}
    with torch.no_grad():
        for part in (network.acmoe.single_gates, network.single_towers):
            for parameter in part.parameters():
                parameter.fill_(float("nan"))
    after = ask(network, NONE, OPEN, NONE, 3)
    network.load_state_dict(kept)
    np.testing.assert_array_equal(before[0], after[0])
