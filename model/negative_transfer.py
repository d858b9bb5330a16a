"""LC-NTG, the loss correction by the negative transfer gap (paper section 3.4)."""

import math

import torch
from torch import Tensor, nn


class NegativeTransferGap(nn.Module):
    """How much worse CDSR does than SDSR in every domain, and the weights of CDSR's losses made of it.

    phi_d = mean SDSR loss - mean CDSR loss of domain d in a batch; below 0, CDSR is worse: negative transfer.
    lambda_d <- m lambda_d + (1 - m) phi_d, unchanged while d has no targets.
    w_d = D ((1 - floor) softmax(lambda / temperature)_d + floor / D), so the mean weight is 1.

    The floor keeps a domain from starving: a domain with less weight fits worse, so its gap sinks further.
    """

    def __init__(self, domains: int, momentum: float, temperature: float, floor: float) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"gap_momentum: must be in [0, 1), got {momentum}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature: must be above 0, got {temperature}")
        if not 0 <= floor <= 1:
            raise ValueError(f"weight_floor: must be in [0, 1], got {floor}")
        self.momentum = momentum
        self.temperature = temperature
        self.floor = floor
        self.average: Tensor  # lambda, [domain]; a buffer, so it is in the checkpoint
        self.register_buffer("average", torch.zeros(domains))

    @torch.no_grad()
    def update(self, single_sum: Tensor, cross_sum: Tensor, count: Tensor) -> Tensor:
        """Take in one global batch and return its gaps phi, 0 where the domain has no targets, [domain].

        Args:
            single_sum: summed SDSR losses per domain, [domain].
            cross_sum: summed CDSR losses per domain, [domain].
            count: targets per domain, [domain].
        """
        present = count > 0
        phi = torch.where(present, (single_sum - cross_sum) / count.clamp(min=1), 0)
        moved = self.momentum * self.average + (1 - self.momentum) * phi
        self.average.copy_(torch.where(present, moved, self.average))
        return phi

    def weights(self) -> Tensor:
        """Weights w of CDSR's losses, [domain]; their mean is 1."""
        domains = len(self.average)
        share = torch.softmax(self.average / self.temperature, dim=0)
        return domains * ((1 - self.floor) * share + self.floor / domains)
