"""docs/security.md names only settings and commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

from service.settings import Settings
from syncrec import cli

GUIDE = (Path(__file__).parents[3] / "docs/security.md").read_text()


def test_each_setting_it_names_exists():
    named = set(re.findall(r"SYNCREC_[A-Z_]+", GUIDE))
    assert named
    assert named <= {f"SYNCREC_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("name", ["drain_notice_ms", "drain_timeout_ms"])
def test_each_default_it_gives_is_the_default(name):
    (default,) = re.findall(rf"`SYNCREC_{name.upper()}`\s+\((\d+)\)", GUIDE)
    assert float(default) == Settings.model_fields[name].default


def test_each_command_it_gives_runs(capsys):
    commands = re.findall(r"syncrec (api-key [^`\n<]+--name [\w-]+)(?=[`\n])", GUIDE)
    assert len(commands) >= 2
    for command in commands:
        assert cli.main(shlex.split(command)) == 0
    assert capsys.readouterr().err == ""
