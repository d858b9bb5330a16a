"""Runs recommend.js, as it is, with a scenario: in QuickJS from PyPI, in Node, wherever they are installed."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import service

MODULE = Path(service.__file__).parent / "pages" / "recommend.js"
PAGE = Path(__file__).parent / "page.js"


def in_quickjs(scenario, folder):
    """The scenario's result."""
    quickjs = pytest.importorskip("quickjs", reason="needs the package quickjs")
    engine = quickjs.Context()
    engine.eval(f"{{ {PAGE.read_text()} }}")
    engine.module(f"{MODULE.read_text()}\nObject.assign(globalThis, {{ createClient, RecommendError }});")
    engine.eval(
        f"(async () => {{ {scenario} }})().then((result) => {{ globalThis.result = JSON.stringify(result) }},"
        " (error) => { globalThis.failure = `${error}\\n${error.stack}` })"
    )
    while engine.execute_pending_job():
        pass
    failure = engine.eval("globalThis.failure")
    assert failure is None, failure
    result = engine.eval("globalThis.result")
    assert result is not None, "the scenario did not end"
    return json.loads(result)


def in_node(scenario, folder):
    """The scenario's result."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    shutil.copyfile(MODULE, folder / "recommend.mjs")
    shutil.copyfile(PAGE, folder / "page.mjs")
    (folder / "main.mjs").write_text(
        'import "./page.mjs";\nimport { createClient, RecommendError } from "./recommend.mjs";\n'
        f"const result = await (async () => {{ {scenario} }})();\n"
        "process.stdout.write(JSON.stringify(result));\n"
    )
    done = subprocess.run([node, folder / "main.mjs"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
