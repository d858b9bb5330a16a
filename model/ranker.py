"""Scores -> the best items of every domain; and the CDSR path with it, exactly as `paper` exports it."""

from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.syncrec import SyNCRec


class TopK(nn.Module):
    """The best items of every domain, filters included."""

    def __init__(self, items_per_domain: tuple[int, ...], max_k: int) -> None:
        super().__init__()
        self.max_k = max_k
        self.columns = list(pairwise(accumulate(items_per_domain, initial=1)))  # [first, end) of every domain

    def forward(
        self, scores: Tensor, exclude: Tensor, restricted: Tensor, include: Tensor, k: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Top-k per domain.

        Args:
            scores: of padding, all items and SOS, [batch, items + 2].
            exclude: item indices that must not be answered, 0 = none, [batch, excluded].
            restricted: whether only `include` may be answered in a domain, [batch, domain].
            include: item indices that may be answered in restricted domains, 0 = none, [batch, included].
            k: items per domain, 1 to `max_k`, a scalar.
        Returns:
            scores, falling, and item indices, [batch, domain, k] each; -inf and 0 where no candidate is left.
        """
        places = cast("int", k.item())  # not int(k): that would fix the number while exporting
        # The exporter needs these to know the size of what TopK returns.
        torch._check(places >= 1)  # noqa: SLF001
        torch._check(places <= self.max_k)  # noqa: SLF001
        closed = torch.cat(
            [restricted[:, :1]]
            + [
                restricted[:, number : number + 1].expand(-1, end - first)
                for number, (first, end) in enumerate(self.columns)
            ]
            + [restricted[:, :1]],
            dim=1,
        )
        # `include` and `exclude` name column 0 for "none"; padding has no domain and is never answered.
        include, exclude = include.long(), exclude.long()
        answerable = scores.masked_fill(closed, float("-inf")).scatter(1, include, scores.gather(1, include))
        answerable = answerable.scatter(1, exclude, float("-inf"))
        best = [self._best(answerable[:, first:end], first, places) for first, end in self.columns]
        return torch.stack([score for score, _ in best], 1), torch.stack([index for _, index in best], 1)

    def _best(self, scores: Tensor, first: int, places: int) -> tuple[Tensor, Tensor]:
        missing = self.max_k - scores.shape[1]
        if missing > 0:  # TopK refuses to return more than there is
            scores = F.pad(scores, (0, missing), value=float("-inf"))
        best, column = scores.topk(places, dim=1)
        index = torch.where(best == float("-inf"), 0, column + first)
        return best, index.int()


class Ranker(nn.Module):
    """Encoded histories -> the best items of every domain by CDSR.

    SDSR's gates, towers and the matrix of SC-MIM are not part of it.
    """

    def __init__(self, network: SyNCRec, items_per_domain: tuple[int, ...], max_k: int) -> None:
        super().__init__()
        self.network = network
        self.top: TopK = TopK(items_per_domain, max_k)
        self.no_bias: Tensor
        self.register_buffer("no_bias", torch.zeros(network.items + 2), persistent=False)

    def forward(
        self, history: Tensor, exclude: Tensor, restricted: Tensor, include: Tensor, k: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Top-k per domain; results and further arguments as in `TopK`.

        Args:
            history: `formats.history.encode_histories`, [batch, slots].
        """
        # The whole table, SOS included, and a bias: so the exporter keeps one table for look-up and scoring (Gemm, transB).
        scores = F.linear(self.network.cross_next(history), self.network.item_vectors(), self.no_bias)
        best: tuple[Tensor, Tensor] = self.top(scores, exclude, restricted, include, k)
        return best
