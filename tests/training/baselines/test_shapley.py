from itertools import permutations

import pytest
import torch

from training.baselines.shapley import shapley_values, transfers


def slow(worth, players):
    """The mean over all orders of joining of what each player adds."""
    orders = list(permutations(range(players)))
    values = [0.0] * players
    for order in orders:
        there = 0
        for player in order:
            values[player] += float(worth[there | 1 << player] - worth[there]) / len(orders)
            there |= 1 << player
    return values


@pytest.mark.parametrize("players", [0, 1, 2, 3, 4])
def test_values_are_those_of_a_loop_over_all_orders(players):
    worth = torch.randn(2**players, dtype=torch.float64)
    found = shapley_values(worth, players)
    assert found.tolist() == pytest.approx(slow(worth, players))
    assert float(found.sum()) == pytest.approx(float(worth[-1] - worth[0]))


def test_players_who_add_the_same_have_the_same_value_and_who_adds_nothing_has_none():
    # Players 0 and 1 are alike, player 2 adds nothing to anybody.
    worth = torch.tensor([0.0, 3, 3, 10, 0, 3, 3, 10])
    assert shapley_values(worth, 3).tolist() == pytest.approx([5, 5, 0])


def test_the_glove_game():
    """One left glove, two right ones; a pair is worth 1."""
    worth = torch.tensor([0.0, 0, 0, 1, 0, 1, 0, 1])
    assert shapley_values(worth, 3).tolist() == pytest.approx([2 / 3, 1 / 6, 1 / 6])


def test_transfers_of_two_domains_are_what_seeing_the_other_takes_off():
    #                  none     only 0    only 1    both
    losses = torch.tensor([[9.0, 9], [3, 9], [9, 5], [2.5, 6]])
    assert transfers(losses).tolist() == [[0, 0.5], [-1, 0]]


def test_a_row_of_transfers_sums_to_what_all_other_domains_take_off():
    losses = torch.rand(16, 4, dtype=torch.float64)
    found = transfers(losses)
    assert (found.diagonal() == 0).all()
    for target in range(4):
        assert float(found[target].sum()) == pytest.approx(float(losses[1 << target, target] - losses[15, target]))


def test_transfers_do_not_read_losses_of_targets_without_their_own_events():
    losses = torch.rand(8, 3, dtype=torch.float64)
    changed = losses.clone()
    for coalition in range(8):
        for target in range(3):
            if not coalition >> target & 1:
                changed[coalition, target] = float("nan")
    assert torch.equal(transfers(changed), transfers(losses))


def test_transfers_go_from_the_source_to_the_target():
    """Domain 2 helps domain 0 by 1 whoever else is there; nothing else matters."""
    losses = torch.full((8, 3), 5.0)
    losses[[0b100, 0b101, 0b110, 0b111], 0] = 4
    assert transfers(losses).tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_with_one_domain_nobody_gives_anything():
    assert transfers(torch.tensor([[2.0], [1.0]])).tolist() == [[0]]
