"""What `import syncrec.client` loads, and what it says without httpx."""

import subprocess
import sys


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_it_loads_httpx_and_nothing_heavy_and_nothing_else_of_ours():
    done = run("import syncrec.client, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))")
    loaded = set(done.stdout.split())
    assert {"syncrec", "httpx"} <= loaded
    heavy = {
        "torch",
        "numpy",
        "polars",
        "pandas",
        "fastapi",
        "starlette",
        "onnxruntime",
        "pydantic",
        "msgspec",
        "redis",
    }
    assert not loaded & heavy
    assert not loaded & {"formats", "model", "training", "service"}
    ours = run("import syncrec.client, sys; print(*(name for name in sys.modules if name.startswith('syncrec')))")
    assert all(name == "syncrec" or name.startswith("syncrec.client") for name in ours.stdout.split())


def test_without_httpx_one_line_says_what_to_install():
    done = run("import sys; sys.modules['httpx'] = None; import syncrec.client")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ImportError: syncrec.client needs httpx: pip install 'syncrec[client]'"
