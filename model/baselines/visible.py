"""Sequences in which some events never happened."""

import torch
from torch import Tensor

from model.syncrec import Sequences


def only_visible(sequences: Sequences, visible: Tensor) -> tuple[Sequences, Tensor]:
    """Leave events out: the others stay in their slots, but nothing sees the gaps, not even in the positions.

    Args:
        sequences: several to a row, SOS at position 0 of each.
        visible: which slots stay; SOS and padding count as visible, bool [batch, seq].
    Returns:
        The sequences, and for every slot, flat, which slot now stands for it: the last visible one up to it in its
        sequence, [batch * seq].
    """
    batch, seq = sequences.item.shape
    real = sequences.segment > 0
    begins = real & (sequences.position == 0)
    kept = real & (visible | begins)
    slot = torch.arange(seq, device=kept.device).expand(batch, -1)
    number = kept.cumsum(1)  # of the visible events in the row, from 1
    first = torch.where(begins, number, 0).cummax(1).values
    changed = Sequences(
        item=torch.where(kept, sequences.item, 0),
        position=torch.where(kept, number - first, 0),
        segment=torch.where(kept, sequences.segment, 0),
        domain=sequences.domain,
    )
    stands_for = torch.where(kept, slot, 0).cummax(1).values
    row = torch.arange(batch, device=kept.device).unsqueeze(1) * seq
    return changed, (row + stands_for).flatten()
