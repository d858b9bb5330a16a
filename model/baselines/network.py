"""What every baseline's network offers: users' representations at targets, and after the newest event of a history."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from model.syncrec import Sequences


class NextItemNetwork(nn.Module, ABC):
    """Reads sequences and answers with a vector per user and domain; an item's score is its product with that vector."""

    @abstractmethod
    def encode(self, sequences: Sequences, last: int | None = None) -> Tensor:
        """What is known at every position, whatever domain will be asked for.

        Args:
            sequences: several to a row, kept apart by segments.
            last: answer only the last so many positions.
        Returns:
            [batch, seq, dim], or [batch, last, dim].
        """

    @abstractmethod
    def answer(self, states: Tensor, domain: int) -> Tensor:
        """The representation with which items of a domain, 0-based, are scored: [n, dim] -> [n, width of item vectors]."""

    @abstractmethod
    def item_vectors(self) -> Tensor:
        """Vectors of padding and of all items by index; what stands behind the items is never a target."""

    def at_slots(self, sequences: Sequences, slot: Tensor, targets_per_domain: list[int]) -> Tensor:
        """Representations at the targets of a batch.

        Args:
            sequences: the input.
            slot: flat place in it of what predicts each target, [target].
            targets_per_domain: targets are sorted by domain; so many each.
        Returns:
            [target, width of item vectors].
        """
        states = self.encode(sequences).flatten(0, 1)[slot].split(targets_per_domain)
        return torch.cat([self.answer(own, domain) for domain, own in enumerate(states)])

    def at_end(self, sequences: Sequences, domain: int) -> Tensor:
        """Representations after the last slot of every row, [batch, width of item vectors]."""
        return self.answer(self.encode(sequences, last=1)[:, -1], domain)


def initialise(module: nn.Module) -> None:
    """Linear and embedding weights from normal(0, 0.02), biases and padding zero, as in SyNCRec; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
