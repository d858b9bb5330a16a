"""What every baseline's network offers: users' representations at targets, and after the newest event of a history."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from model.baselines.sequence_encoder import SequenceEncoder
from model.syncrec import Sequences


class NextItemNetwork(nn.Module, ABC):
    """Reads sequences and answers with a vector per user and domain; an item's score is its product with that vector."""

    def __init__(self, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def answer(self, states: Tensor, domain: int) -> Tensor:
        """The representations with which items of a domain are scored.

        Args:
            states: of the encoder, [n, dim].
            domain: 0-based.
        Returns:
            [n, width of item vectors].
        """

    def item_vectors(self) -> Tensor:
        """Vectors of padding and of all items by index; what stands behind the items is never a target."""
        return self.encoder.item_embedding.weight

    def at_slots(self, sequences: Sequences, slot: Tensor, targets_per_domain: list[int]) -> Tensor:
        """Representations at the targets of a batch.

        Args:
            sequences: the input.
            slot: flat place in it of what predicts each target, [target].
            targets_per_domain: targets are sorted by domain; so many each.
        Returns:
            [target, width of item vectors].
        """
        states = self.encoder(sequences).flatten(0, 1)[slot].split(targets_per_domain)
        return torch.cat([self.answer(own, domain) for domain, own in enumerate(states)])

    def at_end(self, sequences: Sequences, domain: int) -> Tensor:
        """Representations after the last slot of every row, [batch, width of item vectors]."""
        return self.answer(self.encoder(sequences, last=1)[:, -1], domain)
