"""Tensors and a little JSON in one file that is replaced whole: safetensors, no pickles."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from formats.errors import WorkFailed
from formats.files import replace_file


def write_checkpoint(file: Path, tensors: dict[str, Tensor], notes: dict[str, Any]) -> None:
    """Write a checkpoint; a crash or a full disk on the way leaves the former one.

    Raises:
        WorkFailed: the file cannot be written.
    """
    # One entry, since safetensors writes several in any order: the same run gives the same bytes.
    about = json.dumps({"notes": notes, "sha256": _digest(tensors)})
    replace_file(file, save(tensors, metadata={"about": about}))


def read_checkpoint(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and notes of a checkpoint.

    Raises:
        WorkFailed: there is none, or it is damaged.
    """
    try:
        with safe_open(file, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
            about = json.loads(content.metadata()["about"])
            notes, digest = about["notes"], about["sha256"]
    except FileNotFoundError as error:
        raise WorkFailed(f"{file}: no such checkpoint") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WorkFailed(f"{file}: damaged checkpoint: {error}") from error
    if _digest(tensors) != digest:
        raise WorkFailed(f"{file}: damaged checkpoint: its SHA-256 differs from the one it was written with")
    return tensors, notes


def _digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over all tensors by name; safetensors itself would not notice a flipped bit."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().numpy().tobytes())
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state under the names of the parameters, `optimizer/<key>/<parameter>`."""
    return {
        f"optimizer/{key}/{name}": value
        for name, parameter in module.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` gave."""
    parameters = dict(module.named_parameters())
    for name, value in tensors.items():
        if name.startswith("optimizer/"):
            _, key, parameter = name.split("/", 2)
            optimizer.state[parameters[parameter]][key] = value
