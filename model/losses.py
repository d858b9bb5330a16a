"""The next-item losses, and SC-MIM."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pairwise_loss(positive: Tensor, negative: Tensor) -> Tensor:
    """-log sigmoid(s+ - s-) per target (paper section 3.2), in the softplus form that neither saturates nor overflows.

    Args:
        positive: scores of the targets, [target].
        negative: scores of one item each that the user has not, [target].
    Returns:
        [target].
    """
    return F.softplus(negative - positive)


def softmax_loss(states: Tensor, vectors: Tensor, target: Tensor, candidates: Tensor, items: int) -> Tensor:
    """-log softmax of each target's score among all items of its domain, estimated from items drawn uniformly.

    Each drawn item stands for (items - 1) / drawn others, so that the estimate's normaliser is right in expectation and the
    scores become log-probabilities up to a constant per user; with all items drawn it is the exact softmax.

    Args:
        states: users' representations at targets of one domain, [target, dim].
        vectors: of the items that `target` and `candidates` count, of the domain alone or of more, [vector, dim].
        target: item indices, [target].
        candidates: distinct items of the domain, [candidate]. A target among them is not its own negative.
        items: size of the domain.
    Returns:
        [target].
    """
    positive = (states * vectors[target]).sum(-1, keepdim=True)
    hit = candidates == target[:, None]
    drawn = (~hit).sum(-1, keepdim=True).clamp(min=1)
    others = (states @ vectors[candidates].T + torch.log((items - 1) / drawn)).masked_fill(hit, float("-inf"))
    return torch.cat([positive, others], dim=1).logsumexp(1) - positive.squeeze(1)


def sum_per_group(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums of the values in each group, 0 where a group is empty.

    Args:
        values: [target] or [target, dim].
        group: the group of each value, [target].
        groups: number of groups.
    Returns:
        [groups] or [groups, dim].
    """
    return values.new_zeros(groups, *values.shape[1:]).index_add(0, group, values)


class MutualInformation(nn.Module):
    """SC-MIM: the InfoNCE bound on the mutual information of both tasks' representations (paper section 3.5).

    For every domain, a user's CDSR vector shall tell that user's SDSR vector from the other users'. The similarity is
    bilinear, rho(a, b) = a^T W b / sqrt(dim).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.bilinear = nn.Parameter(torch.empty(dim, dim).normal_(std=0.02))

    def forward(self, single: Tensor, cross: Tensor, present: Tensor, own: slice | None = None) -> Tensor:
        """Negative bound, averaged over users and then over the domains with at least two users; 0 if there is none.

        Args:
            single: SDSR vectors of all users of the global batch, [all users, domain, dim].
            cross: CDSR vectors of the users that are scored here, [user, domain, dim].
            present: which users have targets in which domain, [all users, domain].
            own: which of all users are scored here; None = all. The parts of a global batch add up to the whole.
        Returns:
            a scalar.
        """
        own = own if own is not None else slice(None)
        users = present.sum(0)  # [domain]
        pairs = torch.einsum("vdr,rs,uds->duv", single, self.bilinear, cross) / single.shape[-1] ** 0.5
        pairs = pairs.masked_fill(~present.T.unsqueeze(1), float("-inf"))
        # A domain without any user is left out of softmax altogether: all its logits are -inf, and 0 * NaN is NaN.
        counted = users >= 2
        log_share = pairs[counted].log_softmax(-1)[:, :, own].diagonal(dim1=1, dim2=2)  # [domain, user]
        scored = present[own][:, counted].T
        per_domain = -torch.where(scored, log_share, 0).sum(1) / users[counted]
        return per_domain.sum() / counted.sum().clamp(min=1)
