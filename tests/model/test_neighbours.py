import numpy as np
import pytest
import torch

from model.neighbours import Neighbours

SIZES = (5, 4, 3)  # items 1-5, 6-9, 10-12
ITEMS = sum(SIZES)
DOMAIN = [0, *[1] * 5, *[2] * 4, *[3] * 3, 0]
SLOTS = 7
DECAY = 0.8


def random_table(domains, seed=0, most=3):
    """Neighbours of every item in every domain: none to `most`, filled up with 0."""
    random = np.random.default_rng(seed)
    item, weight = np.zeros((ITEMS + 1, len(domains), most), dtype=np.int32), np.zeros((ITEMS + 1, len(domains), most))
    for row in range(1, ITEMS + 1):
        for number, domain in enumerate(domains):
            others = [one for one in range(1, ITEMS + 1) if DOMAIN[one] == domain and one != row]
            kept = random.choice(others, min(len(others), random.integers(0, most + 1)), replace=False)
            item[row, number, : len(kept)] = kept
            weight[row, number, : len(kept)] = random.random(len(kept))
    return item, weight


def build(domains=(1, 2, 3), of_all=(0, 0, 0), of_own=(0, 0, 0), seed=0):
    table = random_table(domains, seed)
    tensors = map(torch.from_numpy, table)
    return Neighbours(*tensors, torch.tensor(DOMAIN), DECAY, domains, of_all, of_own).double(), table


def encoded(histories):
    rows = torch.zeros(len(histories), SLOTS, dtype=torch.int32)
    for row, history in zip(rows, histories, strict=True):
        window = history[-(SLOTS - 1) :]
        row[SLOTS - 1 - len(window) :] = torch.tensor([ITEMS + 1, *window])
    return rows


def slow(table, domains, history, domain, own):
    """Scores of one domain by a loop over events and neighbours, item -> score."""
    item, weight = table
    window = history[-(SLOTS - 1) :]
    heard = [one for one in window if DOMAIN[one] == domain] if own else window
    scores = dict.fromkeys((one for one in range(1, ITEMS + 1) if DOMAIN[one] == domain), 0.0)
    for place, event in enumerate(reversed(heard)):
        for neighbour, strength in zip(
            item[event, domains.index(domain)], weight[event, domains.index(domain)], strict=True
        ):
            if neighbour:
                scores[int(neighbour)] += DECAY**place * strength
    return scores


HISTORIES = [[], [3], [1, 6, 10, 2, 6], [1, 2, 3, 4, 5, 1], [12, 11, 10, 12, 11, 9, 8, 7, 6, 5], [9] * 6, [1] * 9]


def random_histories(seed):
    random = np.random.default_rng(seed)
    return [random.integers(1, ITEMS + 1, length).tolist() for length in random.integers(0, 2 * SLOTS, 12)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("domains", "of_all", "of_own"),
    [
        ((1, 2, 3), (1, 1, 1), (0, 0, 0)),
        ((1, 2, 3), (0, 0, 0), (1, 1, 1)),
        ((1, 2, 3), (0.5, 0, 0.25), (0.125, 0.7, 0)),
        ((2,), (0.3,), (0.2,)),
        ((1, 3), (0, 0.4), (0.9, 0)),
    ],
    ids=["all", "own", "both", "one domain", "each its own"],
)
def test_it_adds_the_weighted_shares_that_a_loop_over_events_gives(domains, of_all, of_own, seed):
    module, table = build(domains, of_all, of_own, seed)
    histories = [*HISTORIES, *random_histories(seed)]
    before = torch.rand(len(histories), ITEMS + 2, dtype=torch.float64)
    added = (module(before, encoded(histories)) - before).numpy()
    for row, history in zip(added, histories, strict=True):
        wanted = np.zeros(ITEMS + 2)
        for domain, *weights in zip(domains, of_all, of_own, strict=True):
            for weight, own in zip(weights, (False, True), strict=True):
                scores = slow(table, domains, history, domain, own)
                for item, score in scores.items():
                    wanted[item] += weight * score / (sum(scores.values()) or 1)
        np.testing.assert_allclose(row, wanted, rtol=0, atol=1e-12)


def test_shares_add_up_to_the_weights_and_padding_and_sos_get_nothing():
    module, _ = build(of_all=(0.5, 0.25, 0.125), of_own=(0.25, 0.125, 0.5))
    added = module(torch.zeros(1, ITEMS + 2, dtype=torch.float64), encoded([[1, 2, 3, 6, 7, 10]]))[0]
    assert added[[0, -1]].tolist() == [0, 0]
    sums = [float(part.sum()) for part in added[1:-1].split(SIZES)]
    np.testing.assert_allclose(sums, [0.75, 0.375, 0.625])


@pytest.mark.parametrize("history", [[], [3]])
def test_a_history_that_speaks_for_nothing_adds_nothing(history):
    """No event; an item without neighbours."""
    item, weight = (np.zeros((ITEMS + 1, 3, 2), dtype=kind) for kind in (np.int32, np.float64))
    module = Neighbours(
        torch.from_numpy(item), torch.from_numpy(weight), torch.tensor(DOMAIN), DECAY, [1, 2, 3], [1, 1, 1], [1, 1, 1]
    )
    before = torch.rand(1, ITEMS + 2, dtype=torch.float64)
    assert torch.equal(module(before, encoded([history])), before)


def test_more_padding_changes_nothing():
    module, _ = build(of_all=(0.5, 0, 1), of_own=(0.5, 1, 0))
    rows = encoded([[1, 2, 6], [10]])
    longer = torch.nn.functional.pad(rows, (5, 0))
    nothing = torch.zeros(2, ITEMS + 2, dtype=torch.float64)
    torch.testing.assert_close(module(nothing, longer), module(nothing, rows), rtol=0, atol=1e-12)


def test_events_of_another_domain_change_one_member_and_not_the_other():
    for of_all, of_own, changes in (((1, 0, 0), (0, 0, 0), True), ((0, 0, 0), (1, 0, 0), False)):
        module, _ = build(of_all=of_all, of_own=of_own)
        nothing = torch.zeros(2, ITEMS + 2, dtype=torch.float64)
        one, other = module(nothing, encoded([[1, 2], [1, 7, 2, 8]]))
        assert torch.equal(one, other) != changes
