"""One process or several (torchrun): sums over ranks, and gathering with gradients.

Every rank computes its share of a global batch's loss, divided by global counts, so gradients are summed, not averaged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """This process among those that train together."""

    rank: int = 0
    ranks: int = 1

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over ranks, without gradient."""
        total = tensor.detach().clone()
        if self.ranks > 1:
            dist.all_reduce(total)
        return total

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return flag if self.ranks == 1 else bool(self.sum(torch.tensor(int(flag))))

    def sum_with_gradient(self, tensor: Tensor) -> Tensor:
        """The sum over ranks; its gradient reaches every rank's part."""
        if self.ranks == 1:
            return tensor
        summed: Tensor = _SumOverRanks.apply(tensor)  # type: ignore[no-untyped-call]
        return summed

    def sum_gradients(self, module: nn.Module) -> None:
        """Replace every gradient by its sum over ranks; a parameter without one counts as zero."""
        if self.ranks == 1:
            return
        for parameter in module.parameters():
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:  # noqa: ARG004
        total = tensor.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # noqa: ARG004
        # Every rank's loss depends on this rank's part.
        total = gradient.clone()
        dist.all_reduce(total)
        return total


@contextmanager
def joined_processes() -> Iterator[Processes]:
    """The processes that torchrun started, or this one alone."""
    if "RANK" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield Processes()
        return
    dist.init_process_group("gloo")
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
        # Without waiting for the others, tearing down has aborted a rank that had finished.
        dist.barrier()
    finally:
        dist.destroy_process_group()
