"""Similarity of domains: whether who likes this here likes that there, more than if users were paired at random."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.dataset import Dataset

_SHUFFLES: Final = 5
Floats = NDArray[np.float64]


def similarities(dataset: Dataset, seed: int) -> Floats:
    """Association of two domains' items over users, [domain, domain], 0 on the diagonal.

    For a pair of domains it is chi² / n of the table that counts, for an item of each, the users with training events of both
    items; less the same with the users of one domain shuffled, since even unrelated tables have a chi² above 0.

    Args:
        dataset: whose training events.
        seed: of the shuffles.
    """
    random = np.random.default_rng(seed)
    has = _who_has_what(dataset)
    found = np.zeros((len(has), len(has)))
    for one in range(len(has)):
        for other in range(one):
            by_chance = [_association(has[one], random.permutation(has[other])) for _ in range(_SHUFFLES)]
            found[one, other] = found[other, one] = _association(has[one], has[other]) - float(np.mean(by_chance))
    return found


def _who_has_what(dataset: Dataset) -> list[Floats]:
    """Of each domain, 1 where a user has an item, [users, items of the domain]."""
    train = dataset.train
    has = np.zeros((train.users, dataset.items + 2))
    has[np.repeat(np.arange(train.users), np.diff(train.user_offsets)), train.item_index] = 1
    firsts = [dataset.first_item(number) for number in range(1, len(dataset.domains) + 2)]
    return [has[:, first:end] for first, end in pairwise(firsts)]


def _association(one: Floats, other: Floats) -> float:
    """Chi² / n of the table of common users."""
    table = one.T @ other
    expected = table.sum(1, keepdims=True) * table.sum(0) / table.sum()
    return float(((table - expected) ** 2 / expected).sum() / table.sum())
