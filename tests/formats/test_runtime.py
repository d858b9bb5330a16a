import os
import subprocess
import sys
from pathlib import Path

import pytest

import formats.runtime
from formats.errors import WorkFailed
from formats.runtime import import_onnxruntime

ROOT = Path(__file__).parents[2]

RUN_A_SESSION = """
import sys
import numpy as np
from formats.history import encode_histories
from formats.runtime import import_onnxruntime
onnxruntime = import_onnxruntime()
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
session.run(None, {
    "history": encode_histories([np.array([1], dtype=np.int32)], int(sys.argv[2]), int(sys.argv[3])),
    "exclude": np.zeros((1, 1), dtype=np.int32),
    "restricted": np.zeros((1, 3), dtype=np.bool_),
    "include": np.zeros((1, 1), dtype=np.int32),
    "k": np.array(3),
})
"""


def test_importing_and_running_a_session_writes_nothing_into_the_home_folder(tiny_bundle, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    manifest = tiny_bundle.manifest
    ended = subprocess.run(
        [sys.executable, "-c", RUN_A_SESSION, tiny_bundle.graph, str(manifest.max_history), str(manifest.items)],
        cwd=ROOT,
        env={**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert list(home.rglob("*")) == []


def test_the_switch_is_set_before_the_first_import(monkeypatch):
    """The environment variable must be there when the module is looked for."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    seen = []

    class Finder:
        def find_spec(self, name, *_):
            if name == "onnxruntime":
                seen.append(os.environ.get("ORT_DISABLE_TELEMETRY"))
                raise ImportError(name)

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(ImportError):
        import_onnxruntime()
    assert seen == ["1"]


@pytest.mark.parametrize(
    ("installed", "message"),
    [
        ({"onnxruntime", "onnxruntime-gpu"}, "pip uninstall -y onnxruntime onnxruntime-gpu"),
        (set(), r"install syncrec\[cpu\], or syncrec\[gpu\]"),
    ],
)
def test_both_distributions_or_none_are_refused_with_the_cure(monkeypatch, installed, message):
    monkeypatch.setattr(formats.runtime, "_is_installed", lambda name: name in installed)
    with pytest.raises(WorkFailed, match=message):
        import_onnxruntime()


def test_distributions_are_looked_up_by_their_real_names():
    assert formats.runtime._is_installed("onnxruntime")
    assert not formats.runtime._is_installed("onnxruntime-no-such-thing")
    assert import_onnxruntime().InferenceSession
