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
        neighbours: Neighbours | None,
        items_per_domain: tuple[int, ...],
        recent: Sequence[str],
        weights: Sequence[Weights],
    ) -> None:
        """Put members together.

        Args:
            network: gives `cross` and `single`.
            neighbours: gives `neighbours` and `own_neighbours`, with their weights; None if no domain gives them one.
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

    def forward(self, history: Tensor, recent: Tensor | None = None) -> Tensor:
        """Shares of all items.

        Args:
            history: `formats.history.encode_histories`, [batch, slots].
            recent: decayed counts of events, [members that count recent events, items + 2]; None if there are none.
        Returns:
            [batch, items + 2]; 0 for padding and SOS.
        """
        batch, table = history.shape[0], self.network.item_vectors()
        nothing = table.new_zeros(batch, 1)
        parts = [nothing]
        vectors = self._of_domains(table, dim=0)
        counts = [None] * len(vectors) if recent is None else self._of_domains(recent, dim=1)
        for number, states in enumerate(self._states(history)):
            terms = [weight * (state @ vectors[number].T).softmax(-1) for weight, state in states]
            terms += self._popular(number, counts[number])
            mixed = terms[0] if terms else table.new_zeros(1, len(vectors[number]))
            for term in terms[1:]:
                mixed = mixed + term
            parts.append(mixed.expand(batch, -1))
        shares = torch.cat([*parts, nothing], dim=1)
        return shares if self.neighbours is None else self.neighbours(shares, history)

    def _states(self, history: Tensor) -> list[list[tuple[float, Tensor]]]:
        """Per domain, what the towers in use make of the histories, [batch, dim] each, and their weights."""
        found: list[list[tuple[float, Tensor]]] = [[] for _ in self.weights]
        if any(CROSS in of_domain for of_domain in self.weights):
            cross = self.network.cross_next(history)
            for number, of_domain in enumerate(self.weights):
                if CROSS in of_domain:
                    found[number].append((of_domain[CROSS], cross))
        if self.singles:
            single = self.network.singles_next(history, self.singles)
            for place, number in enumerate(self.singles):
                found[number].append((self.weights[number][SINGLE], single[:, place]))
        return found

    def _popular(self, number: int, counts: Tensor | None) -> list[Tensor]:
        """The weighted shares of recent events in a domain, one term for all members and all users, [1, items]."""
        weights = [self.weights[number].get(name, 0.0) for name in self.recent]
        if counts is None or not any(weights):
            return []
        sums = counts.sum(-1).clamp(min=torch.finfo(counts.dtype).tiny)
        return [(torch.tensor([weights], dtype=counts.dtype) / sums) @ counts]

    def _of_domains(self, values: Tensor, dim: int) -> list[Tensor]:
        """What stands at the items of each domain; padding and SOS have none."""
        found: list[Tensor] = values.split([1, *self.items_per_domain, 1], dim=dim)[1:-1]
        return found


class MixedRanker(nn.Module):
    """Encoded histories and recent counts -> the best items of every domain by the mixture."""

    def __init__(self, mixture: Mixture, max_k: int) -> None:
        super().__init__()
        self.mixture = mixture
        self.top = TopK(mixture.items_per_domain, max_k)

    def forward(
        self,
        history: Tensor,
        exclude: Tensor,
        restricted: Tensor,
        include: Tensor,
        k: Tensor,
        recent: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Top-k per domain; arguments as in `Mixture` and `TopK`, results as in `TopK`."""
        best: tuple[Tensor, Tensor] = self.top(self.mixture(history, recent), exclude, restricted, include, k)
        return best
