"""Shapley values (Shapley 1953), exact over all coalitions; what events of one domain are worth to targets of another."""

from math import factorial

from torch import Tensor


def shapley_values(worth: Tensor, players: int) -> Tensor:
    """The mean marginal contribution of each player over all orders in which they may join.

    Args:
        worth: of every coalition; bit p of an index says whether player p is in it, [2^players].
        players: how many.
    Returns:
        [players]; their sum is the worth of all together less that of nobody.
    """
    values = worth.new_zeros(players)
    for coalition in range(2**players):
        size = coalition.bit_count()
        for player in range(players):
            if not coalition >> player & 1:
                orders = factorial(size) * factorial(players - size - 1) / factorial(players)
                values[player] += orders * (worth[coalition | 1 << player] - worth[coalition])
    return values


def transfers(losses: Tensor) -> Tensor:
    """What seeing the events of each domain takes off the losses of every other domain's targets.

    For each target domain the others are players; a coalition is worth the loss of targets that are predicted from their own
    domain's events alone, less the loss with the events of the coalition as well.

    Args:
        losses: mean loss of each domain's targets with the events of some domains visible; bit e of a row's index says
            whether those of domain e are, [2^domains, domain]. Read where a target's own domain is visible.
    Returns:
        [target domain, source domain], 0 on the diagonal; a row sums to what all other domains together take off.
    """
    domains = losses.shape[1]
    found = losses.new_zeros(domains, domains)
    for target in range(domains):
        sources = [domain for domain in range(domains) if domain != target]
        visible = [
            1 << target | sum(1 << source for place, source in enumerate(sources) if coalition >> place & 1)
            for coalition in range(2 ** len(sources))
        ]
        worth = losses[1 << target, target] - losses[visible, target]
        found[target, sources] = shapley_values(worth, len(sources))
    return found
