"""The mixture that `default` serves: per domain, a weighted sum of what several members hold likely.

A member gives every item of a domain a share; shares add up to 1 (or are all 0 where a member knows nothing). A member that no
domain gives a weight is not part of the graph: without SDSR there is no second encoder.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.neighbours import Neighbours
from model.ranker import TopK
from model.syncrec import SyNCRec

CROSS, SINGLE = "cross", "single"
NEIGHBOURS, OWN_NEIGHBOURS = "neighbours", "own_neighbours"
Weights = dict[str, float]


class Mixture(nn.Module):
    """Shares of all items under the mixture."""

    def __init__(
        self,
        network: SyNCRec,
        neighbours: Neighbours,
        items_per_domain: tuple[int, ...],
        recent: Sequence[str],
        weights: Sequence[Weights],
    ) -> None:
        """Put members together.

        Args:
            network: gives `cross` and `single`.
            neighbours: gives `neighbours` and `own_neighbours`.
            items_per_domain: sizes of the domains.
            recent: names of the members that count recent events, in the order of their rows.
            weights: per domain, member -> weight.
        """
        super().__init__()
        self.network = network
        self.neighbours = neighbours
        self.items_per_domain = items_per_domain
        self.recent = list(recent)
        self.weights = [{name: weight for name, weight in of_domain.items() if weight > 0} for of_domain in weights]
        self.singles = [number for number, of_domain in enumerate(self.weights) if SINGLE in of_domain]

    def forward(self, history: Tensor, recent: Tensor) -> Tensor:
        """Shares of all items.

        Args:
            history: `formats.history.encode_histories`, [batch, slots].
            recent: decayed counts of events, [half-lives, items + 2].
        Returns:
            [batch, items + 2]; 0 for padding and SOS.
        """
        vectors = self.network.item_vectors().split([1, *self.items_per_domain, 1])
        cross = self.network.cross_next(history) if self._anywhere(CROSS) else history
        single = self.network.singles_next(history, self.singles) if self.singles else history
        counts = {name: recent[row] for row, name in enumerate(self.recent)}
        if self._anywhere(NEIGHBOURS):
            counts[NEIGHBOURS] = self.neighbours(history)
        if self._anywhere(OWN_NEIGHBOURS):
            counts[OWN_NEIGHBOURS] = self.neighbours.own(history)
        of_domain = {name: count.split([1, *self.items_per_domain, 1], dim=-1) for name, count in counts.items()}
        nothing = torch.zeros(history.shape[0], 1)
        parts = [nothing]
        for number, weights in enumerate(self.weights):
            own = vectors[number + 1]
            mixed = torch.zeros(history.shape[0], len(own))
            for name, weight in weights.items():
                if name == CROSS:
                    share = (cross @ own.T).softmax(-1)
                elif name == SINGLE:
                    share = (single[:, self.singles.index(number)] @ own.T).softmax(-1)
                else:
                    share = shares(of_domain[name][number + 1])
                mixed = mixed + weight * share
            parts.append(mixed)
        return torch.cat([*parts, nothing], dim=1)

    def _anywhere(self, name: str) -> bool:
        return any(name in weights for weights in self.weights)


class MixedRanker(nn.Module):
    """Encoded histories and recent counts -> the best items of every domain by the mixture."""

    def __init__(self, mixture: Mixture, max_k: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.top = TopK(mixture.items_per_domain, max_k)

    def forward(
        self, history: Tensor, exclude: Tensor, restricted: Tensor, include: Tensor, k: Tensor, recent: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Top-k per domain; arguments as in `Mixture` and `TopK`, results as in `TopK`."""
        best: tuple[Tensor, Tensor] = self.top(self.mixture(history, recent), exclude, restricted, include, k)
        return best


def shares(counts: Tensor) -> Tensor:
    """Counts in a domain -> shares that add up to 1, or all 0 where nothing was counted; [..., items]."""
    return counts / counts.sum(-1, keepdim=True).clamp(min=torch.finfo(counts.dtype).tiny)
