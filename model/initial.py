"""The weights that a network begins with."""

import torch
from torch import nn


def initialise(module: nn.Module) -> None:
    """Linear and embedding weights from normal(0, 0.02), biases and padding zero, as in the paper's public code; for `nn.Module.apply`."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    if isinstance(module, nn.Embedding) and module.padding_idx is not None:
        with torch.no_grad():
            module.weight[module.padding_idx].zero_()
