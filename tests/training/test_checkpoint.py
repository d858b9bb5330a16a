import errno
import os

import pytest
import torch
from torch import nn

from formats.errors import WorkFailed
from training.checkpoint import optimizer_tensors, read_checkpoint, restore_optimizer, write_checkpoint

NOTES = {"epoch": 3, "score": 0.1 + 0.2, "finished": False, "name": "ü"}


def tensors():
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(1.5, dtype=torch.float64), "c": torch.zeros(0)}


def test_tensors_and_notes_come_back_to_the_bit(tmp_path):
    file = tmp_path / "last.safetensors"
    write_checkpoint(file, tensors(), NOTES)
    found, notes = read_checkpoint(file)
    assert notes == NOTES
    assert found.keys() == tensors().keys()
    for name, values in tensors().items():
        assert torch.equal(found[name], values)
        assert found[name].dtype == values.dtype


def test_writing_the_same_twice_gives_the_same_bytes(tmp_path):
    for name in ("one", "two"):
        write_checkpoint(tmp_path / name, tensors(), NOTES)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


@pytest.mark.parametrize("when", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_former_checkpoint_and_nothing_else(tmp_path, monkeypatch, when):
    file = tmp_path / "last.safetensors"
    write_checkpoint(file, tensors(), NOTES)
    before = file.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = {
        "write": "pathlib.Path.open",
        "fsync": "formats.files.os.fsync",
        "replace": "pathlib.Path.replace",
    }
    with monkeypatch.context() as patch:
        patch.setattr(target[when], full)
        with pytest.raises(WorkFailed, match=r"last.safetensors: No space left on device"):
            write_checkpoint(file, {"a": torch.ones(5)}, {})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(WorkFailed, match=r"last.safetensors: no such checkpoint"):
        read_checkpoint(tmp_path / "last.safetensors")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 60, -1])
def test_a_checkpoint_cut_short_is_refused(tmp_path, length):
    file = tmp_path / "last.safetensors"
    write_checkpoint(file, tensors(), NOTES)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(WorkFailed, match=r"last.safetensors: damaged checkpoint"):
        read_checkpoint(file)


def test_a_flipped_bit_among_the_numbers_is_refused(tmp_path):
    file = tmp_path / "c.safetensors"
    write_checkpoint(file, tensors(), {"epoch": 3})
    content = bytearray(file.read_bytes())
    content[-5] ^= 4
    file.write_bytes(content)
    with pytest.raises(WorkFailed, match=r"c\.safetensors: damaged checkpoint: its SHA-256"):
        read_checkpoint(file)


def test_a_file_of_something_else_is_refused(tmp_path):
    from safetensors.torch import save_file

    file = tmp_path / "other.safetensors"
    save_file({"a": torch.ones(2)}, file)  # no notes
    with pytest.raises(WorkFailed, match=r"other.safetensors: damaged checkpoint"):
        read_checkpoint(file)
    file.write_bytes(b"not a checkpoint at all")
    with pytest.raises(WorkFailed, match=r"other.safetensors: damaged checkpoint"):
        read_checkpoint(file)


def test_an_optimiser_goes_on_as_if_it_had_never_been_saved(tmp_path):
    def made():
        torch.manual_seed(0)
        module = nn.Linear(3, 2)
        return module, torch.optim.Adam(module.parameters(), lr=0.1, fused=True)

    def step(module, optimizer, number):
        optimizer.zero_grad()
        (module.weight * (number + torch.arange(6.0).view(2, 3))).sum().backward()  # the bias has no gradient
        optimizer.step()

    whole, resumed = made(), made()
    for number in range(6):
        step(*whole, number)
    for number in range(3):
        step(*resumed, number)
    saved = {**resumed[0].state_dict(), **optimizer_tensors(resumed[1], resumed[0])}
    assert {name for name in saved if "bias" in name} == {"bias"}
    write_checkpoint(tmp_path / "c", saved, {})
    found, _ = read_checkpoint(tmp_path / "c")
    fresh = made()
    fresh[0].load_state_dict({name: values for name, values in found.items() if "/" not in name})
    restore_optimizer(fresh[1], fresh[0], found)
    for number in range(3, 6):
        step(*fresh, number)
    assert torch.equal(fresh[0].weight, whole[0].weight)
    ours, theirs = optimizer_tensors(fresh[1], fresh[0]), optimizer_tensors(whole[1], whole[0])
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(values, theirs[name]) for name, values in ours.items())
