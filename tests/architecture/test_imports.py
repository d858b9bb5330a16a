"""What a process has loaded, beside the arrows that import-linter keeps."""

import subprocess
import sys

import pytest


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh process has loaded after the statement."""
    code = f"{statement}\nimport sys\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_the_service_runs_without_torch():
    loaded = loaded_by("import service.app, syncrec.serve, syncrec.load_histories")
    assert "fastapi" in loaded
    assert not loaded & {"torch", "model", "training", "onnx", "onnxscript", "matplotlib"}


def test_training_runs_without_the_service():
    loaded = loaded_by("import syncrec.prepare, syncrec.train, syncrec.evaluate, syncrec.export")
    assert "torch" in loaded
    assert not loaded & {"service", "fastapi", "redis", "uvicorn"}


def test_the_network_knows_no_files_and_no_numpy_of_its_own():
    loaded = loaded_by("import model.syncrec, model.ranker, model.losses, model.negative_transfer")
    assert not loaded & {"formats", "training", "service", "polars", "pydantic", "onnxruntime"}


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_the_command_itself_loads_nothing_heavy(words):
    loaded = loaded_by(f"from syncrec.cli import main; main({words})")
    assert not loaded & {"torch", "polars", "numpy", "fastapi", "onnxruntime"}
