"""BERT4Rec's objective: events of a window are hidden and predicted from those that are not (Sun et al., section 3.6)."""

from typing import Final

import torch
from torch import Tensor

from model.baselines.bert4rec import BERT4Rec
from training.baselines.next_item import NextItemObjective
from training.batches import Batch
from training.objective import StepLosses, next_item_losses
from training.processes import Processes

# How often a window is the task of inference, its newest event hidden and no other: the authors' code makes one such sample
# for ten with random masks.
NEWEST_ONLY: Final = 1 / 11


class MaskedObjective(NextItemObjective):
    """L = mean loss of all hidden events of the global batch."""

    def __init__(self, network: BERT4Rec, mask_share: float, max_history: int) -> None:
        super().__init__(network, next_item_losses, max_history)
        self.mask, self.mask_share = network.mask, mask_share

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:
        """Losses of one global batch, with events hidden at random."""
        return super().forward(hide_events(batch, self.mask_share, self.mask), processes)


def hide_events(batch: Batch, share: float, mask: int) -> Batch:
    """The windows of a batch in whole, without SOS; targets are the hidden events.

    Args:
        batch: next-item targets; they are the events of the windows.
        share: of a window's events that are hidden, at least one.
        mask: the index that stands in their place.
    """
    window = batch.cross.segment.flatten()[batch.cross_slot]
    hidden = _drawn(window, batch.cross.position.flatten()[batch.cross_slot], share)
    item = torch.zeros_like(batch.cross.item).flatten()
    item[batch.cross_slot] = torch.where(hidden, mask, batch.target)
    domains = len(batch.targets_per_domain)
    return batch._replace(
        cross=batch.cross._replace(item=item.view_as(batch.cross.item)),
        cross_slot=batch.cross_slot[hidden],
        target=batch.target[hidden],
        negative=None,
        domain=batch.domain[hidden],
        user=batch.user[hidden],
        targets_per_domain=torch.bincount(batch.domain[hidden], minlength=domains).tolist(),
    )


def _drawn(window: Tensor, place: Tensor, share: float) -> Tensor:
    """Which events are hidden, bool [event]; of each its window's number and its place in it, [event] each."""
    _, window, size = window.unique(return_inverse=True, return_counts=True)
    newest_only = torch.rand(len(size)) < NEWEST_ONLY
    count = torch.where(newest_only, 1, (share * size).round().clamp(min=1))
    # The lowest lots of each window are hidden; below all lots that are drawn are those of the newest events.
    lot = torch.where(newest_only[window], -1.0 - place, torch.rand(len(window)))
    order = lot.argsort()
    order = order[window[order].argsort(stable=True)]
    turn = torch.empty_like(order)
    turn[order] = torch.arange(len(order)) - (size.cumsum(0) - size)[window[order]]
    return turn < count[window]
