import itertools

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from model.config import SyNCRecConfig
from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, SINGLE, MixedRanker, Mixture
from model.neighbours import Neighbours
from model.syncrec import build_syncrec
from tests.reference.network import SlowNetwork, lively

SIZES = (5, 4, 3)
ITEMS = sum(SIZES)
SOS = ITEMS + 1
DOMAIN = [0, *[1] * 5, *[2] * 4, *[3] * 3, 0]
L = 8
RECENT = ("recent_4d", "recent_60d")
EXACT = {"rtol": 0, "atol": 1e-10}
SUBSETS = [subset for size in (1, 2, 3) for subset in itertools.combinations(range(3), size)]
# No event; one; one domain only; the whole window; more than it; domains that left the window; repeats.
HISTORIES = [
    [],
    [2],
    [6, 9, 7],
    [1, 6, 10, 2, 7, 11, 3, 8],
    [12, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9],
    [10, 1, 2, 3, 4, 5, 1, 2, 3],
    [4, 4, 4, 12],
]


def build(**changes):
    sizes = {"dim": 8, "heads": 2, "layers": 2, "experts": 4, "single_experts": 1, **changes}
    return lively(build_syncrec(SyNCRecConfig(items_per_domain=SIZES, max_history=L, dropout=0.3, **sizes)))


@pytest.fixture(scope="module")
def network():
    return build()


def encoded(histories):
    rows = torch.zeros(len(histories), L + 1, dtype=torch.int32)
    for row, history in zip(rows, histories, strict=True):
        window = history[-L:]
        row[L - len(window) :] = torch.tensor([SOS, *window])
    return rows


def of_domain(history, domain):
    """The domain's events within the window."""
    return [item for item in history[-L:] if DOMAIN[item] == domain + 1]


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("domains", SUBSETS, ids=str)
def test_one_pass_for_several_domains_equals_one_pass_for_each(domains, layers):
    network = build(layers=layers)
    random = np.random.default_rng(layers)
    histories = [*HISTORIES, *(random.integers(1, SOS, length).tolist() for length in random.integers(0, 2 * L, 8))]
    with torch.no_grad():
        together = network.singles_next(encoded(histories), domains)
        assert together.shape == (len(histories), len(domains), 8)
        for place, domain in enumerate(domains):
            own = encoded([of_domain(history, domain) for history in histories])
            assert_close(together[:, place], network.single_next(own, domain), **EXACT)


def test_one_pass_for_several_domains_equals_the_slow_network(network):
    slow = SlowNetwork(network, SIZES, heads=2, single_experts=1)
    with torch.no_grad():
        found = network.singles_next(encoded(HISTORIES), (0, 1, 2))
        for row, history in zip(found, HISTORIES, strict=True):
            for domain in range(3):
                assert_close(row[domain], slow.single(of_domain(history, domain), domain)[-1], **EXACT)


def test_padding_and_other_rows_do_not_change_a_row(network):
    with torch.no_grad():
        together = network.singles_next(encoded(HISTORIES), (0, 2))
        for row, history in zip(together, HISTORIES, strict=True):
            alone = encoded([history])
            trimmed = alone[:, int(alone.argmax(1)) :] if history == [] else alone[:, L - len(history[-L:]) :]
            assert_close(network.singles_next(alone, (0, 2))[0], row, **EXACT)
            assert_close(network.singles_next(trimmed, (0, 2))[0], row, **EXACT)


def neighbours(weights):
    """A table from every item to the next one of each domain."""
    used = [number for number, own in enumerate(weights) if own.get(NEIGHBOURS) or own.get(OWN_NEIGHBOURS)]
    if not used:
        return None
    item = torch.zeros(ITEMS + 1, len(used), 1, dtype=torch.int32)
    weight = torch.zeros(ITEMS + 1, len(used), 1, dtype=torch.float64)
    for number, domain in enumerate(used):
        first = 1 + sum(SIZES[:domain])
        for row in range(1, SOS):
            item[row, number, 0] = first + (row - first + 1) % SIZES[domain]
            weight[row, number, 0] = 1 + row / 7
    of_all, of_own = ([weights[number].get(name, 0.0) for number in used] for name in (NEIGHBOURS, OWN_NEIGHBOURS))
    return Neighbours(item, weight, torch.tensor(DOMAIN), 0.9, [number + 1 for number in used], of_all, of_own)


def mixture(network, weights, recent=RECENT):
    return Mixture(network, neighbours(weights), SIZES, recent, weights).double()


COUNTS = torch.tensor(np.random.default_rng(0).random((2, ITEMS + 2)))


@torch.no_grad()
def slow_shares(network, history, counts, domain, name):
    """Shares of the items of a domain by one member, spelled out."""
    slow = SlowNetwork(network, SIZES, heads=2, single_experts=1)
    items = [item for item in range(1, SOS) if DOMAIN[item] == domain + 1]
    window = history[-L:]
    if name in (CROSS, SINGLE):
        state = slow.cross(window)[-1] if name == CROSS else slow.single(of_domain(history, domain), domain)[-1]
        likely = torch.exp(network.item_embedding.weight[items] @ state)
        return (likely / likely.sum()).numpy()
    if name in RECENT:
        scores = counts[RECENT.index(name)][items].numpy()
    else:
        scores = np.zeros(len(items))
        heard = window if name == NEIGHBOURS else of_domain(history, domain)
        for place, event in enumerate(reversed(heard)):
            next_one = items[0] + (event - items[0] + 1) % SIZES[domain]
            scores[items.index(next_one)] += 0.9**place * (1 + event / 7)
    return scores / (scores.sum() or 1)


MEMBERS = (CROSS, SINGLE, *RECENT, NEIGHBOURS, OWN_NEIGHBOURS)


def random_weights(seed, left_out=0):
    random = np.random.default_rng(seed)
    found = []
    for _ in SIZES:
        weights = random.dirichlet(np.ones(len(MEMBERS)))
        weights[random.permutation(len(MEMBERS))[:left_out]] = 0
        found.append(dict(zip(MEMBERS, map(float, weights / weights.sum()), strict=True)))
    return found


ALONE = [[{name: 1.0}] * 3 for name in MEMBERS]
EACH_ANOTHER = [[{SINGLE: 1.0}, {CROSS: 0.5, "recent_60d": 0.5}, {OWN_NEIGHBOURS: 1.0}]]


@pytest.mark.parametrize(
    "weights",
    [*ALONE, *EACH_ANOTHER, *(random_weights(seed, left_out) for seed in range(3) for left_out in (0, 3))],
    ids=[*MEMBERS, "each another", *(f"random {seed} {left_out}" for seed in range(3) for left_out in (0, 3))],
)
def test_shares_are_the_weighted_sums_of_the_members_spelled_out(network, weights):
    with torch.no_grad():
        found = mixture(network, weights)(encoded(HISTORIES), COUNTS).numpy()
    assert found.shape == (len(HISTORIES), ITEMS + 2)
    assert (found[:, [0, -1]] == 0).all()
    for row, history in zip(found, HISTORIES, strict=True):
        wanted = [
            sum(
                weight * slow_shares(network, history, COUNTS, domain, name) for name, weight in weights[domain].items()
            )
            for domain in range(3)
        ]
        np.testing.assert_allclose(row[1:-1], np.concatenate(wanted), rtol=0, atol=1e-10)


def test_shares_of_a_domain_add_up_to_1(network):
    with torch.no_grad():
        found = mixture(network, random_weights(7))(encoded(HISTORIES), COUNTS)
    # The first history is empty: neighbours know nothing.
    for part in found[1:, 1:-1].split(SIZES, dim=1):
        assert (part.sum(1) <= 1 + 1e-12).all()
    assert_close(found[3, 1:-1].split(SIZES)[0].sum(), torch.tensor(1.0, dtype=torch.float64))


def test_members_that_know_nothing_add_nothing(network):
    """Nothing happened lately, and nobody knows the user."""
    weights = [{name: 1 / len(MEMBERS) for name in MEMBERS}] * 3
    with torch.no_grad():
        found = mixture(network, weights)(encoded([[]]), torch.zeros_like(COUNTS))
        known = mixture(network, [{CROSS: 1 / len(MEMBERS), SINGLE: 1 / len(MEMBERS)}] * 3)(encoded([[]]))
    assert torch.isfinite(found).all()
    assert_close(found, known, **EXACT)


def test_a_domain_in_which_nothing_happened_lately_is_0_and_the_others_are_not(network):
    counts = COUNTS.clone()
    counts[:, 6:10] = 0
    found = mixture(network, [{"recent_4d": 1.0}] * 3)(encoded([[1]]), counts)[0, 1:-1].split(SIZES)
    assert [float(part.sum()) for part in found] == pytest.approx([1, 0, 1])


@pytest.mark.parametrize(("name", "path"), [(CROSS, "cross_next"), (SINGLE, "singles_next")])
def test_a_tower_without_weight_is_not_computed(network, monkeypatch, name, path):
    called = []
    monkeypatch.setattr(type(network), path, lambda *_: called.append(path))
    without = [{**weights, name: 0.0} for weights in random_weights(1)]
    with torch.no_grad():
        mixture(network, without)(encoded(HISTORIES), COUNTS)
    assert not called


def test_weights_of_0_are_dropped(network):
    found = mixture(network, [{CROSS: 1.0, SINGLE: 0.0, "recent_4d": 0.0, NEIGHBOURS: 0.0}] * 3)
    assert found.weights == [{CROSS: 1.0}] * 3
    assert found.singles == []
    assert found.neighbours is None


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_ranker_answers_the_best_shares_of_every_domain(network, k):
    weights = random_weights(5)
    one = mixture(network, weights)
    history = encoded(HISTORIES)
    exclude = torch.tensor([[1, 6]] * len(HISTORIES), dtype=torch.int32)
    restricted = torch.tensor([[False, False, True]] * len(HISTORIES))
    include = torch.tensor([[11, 1]] * len(HISTORIES), dtype=torch.int32)
    with torch.no_grad():
        scores, index = MixedRanker(one, max_k=5)(history, exclude, restricted, include, torch.tensor(k), COUNTS)
        shares = one(history, COUNTS)
    for row in range(len(HISTORIES)):
        for domain, candidates in enumerate(([2, 3, 4, 5], [7, 8, 9], [11])):
            best = sorted(candidates, key=lambda item: -shares[row, item])[:k]
            assert index[row, domain].tolist() == best + [0] * (k - len(best))
            assert_close(scores[row, domain, : len(best)], shares[row, best], **EXACT)
            assert torch.isneginf(scores[row, domain, len(best) :]).all()


def test_another_order_of_recent_rows_is_another_mixture(network):
    weights = [{"recent_4d": 0.75, "recent_60d": 0.25}] * 3
    found = mixture(network, weights)(encoded([[1]]), COUNTS)
    turned = mixture(network, weights, RECENT[::-1])(encoded([[1]]), COUNTS.flip(0))
    assert_close(turned, found, **EXACT)
    assert (mixture(network, weights)(encoded([[1]]), COUNTS.flip(0)) - found).abs().max() > 1e-3
