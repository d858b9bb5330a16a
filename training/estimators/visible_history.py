"""What histories of other domains are worth to a trained cross-domain model: hide them and see what that costs."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from training.baselines.shapley import transfers
from training.cases import Cases

# Cases -> NLL of each, nats [cases].
Costs = Callable[[Cases], NDArray[np.float64]]


def contributions(costs: Costs, cases: Cases, domains: int) -> torch.Tensor:
    """Shapley values of domains' histories, exact over all 2^(D-1) sets of other domains for every target's domain.

    Args:
        costs: of a trained model.
        cases: held-out events, of every domain some.
        domains: how many.
    Returns:
        nats that the events of the row's domain take off the NLL of the column's targets, [source, target], 0 on the diagonal.
    """
    losses = torch.zeros(2**domains, domains, dtype=torch.float64)
    for coalition in range(1, 2**domains):
        visible = [domain for domain in range(domains) if coalition >> domain & 1]
        own = np.flatnonzero(np.isin(cases.target_domain - 1, visible))
        seen = _with_visible(cases.take(own), visible)
        cost = costs(seen)
        for domain in visible:
            losses[coalition, domain] = float(cost[seen.target_domain == domain + 1].mean())
    return transfers(losses).T


def _with_visible(cases: Cases, visible: list[int]) -> Cases:
    """Events of other domains become unknown ones, which no model reads; the targets are all of visible domains."""
    return replace(cases, item_index=np.where(np.isin(cases.domain - 1, visible), cases.item_index, 0))
