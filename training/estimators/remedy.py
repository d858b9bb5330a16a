"""The remedy of LC-NTG with any estimate in the place of lambda: a domain that is said to gain less counts less in the loss."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from model.negative_transfer import NegativeTransferGap
from training.baselines.next_item import TargetLosses
from training.batches import Batch

_TEMPERATURE: Final = 1.0
_FLOOR: Final = 0.05


def correction_weights(estimate: Sequence[float]) -> list[float]:
    """The weights w_d that LC-NTG would make of an estimate, [domain]; their mean is 1.

    Estimates have different units. So each is first brought to mean 0 and standard deviation 1 over the domains: estimators then
    differ in what they say of the domains, not in how loudly.

    Args:
        estimate: [domain]; all equal gives equal weights.
    """
    values = np.asarray(estimate, dtype=np.float64)
    spread = values.std()
    standard = (values - values.mean()) / spread if spread > 0 else np.zeros_like(values)
    gap = NegativeTransferGap(len(values), momentum=0, temperature=_TEMPERATURE, floor=_FLOOR)
    once = torch.ones(len(values))
    gap.update(torch.from_numpy(standard).float(), 0 * once, once)
    return gap.weights().tolist()


def weighted(target_losses: TargetLosses, weights: Sequence[float]) -> TargetLosses:
    """Losses of targets times the weights of their domains, as LC-NTG weighs those of CDSR.

    Args:
        target_losses: of the plain objective.
        weights: [domain].
    """
    of_domain = torch.tensor(weights)

    def losses(states: Tensor, vectors: Tensor, batch: Batch) -> Tensor:
        return of_domain[batch.domain] * target_losses(states, vectors, batch)

    return losses
