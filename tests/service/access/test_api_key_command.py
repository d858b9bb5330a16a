"""`syncrec api-key`: what it prints opens the service, and a key that was given is not repeated."""

import io
import re
import subprocess
import sys

import pytest

from service.access.access import Access
from service.access.keys import GRANTED, new_key, read_keys
from syncrec import cli


def printed_entry(out):
    """(variable, entry) as somebody reads them off."""
    return re.search(r"entry of (SYNCREC_\w+),.*\n  (\S+)\n\Z", out).groups()


def access_with(out):
    variable, entry = printed_entry(out)
    return Access(read_keys(**{"api_keys": "", "admin_keys": "", variable.removeprefix("SYNCREC_").lower(): entry}))


@pytest.mark.parametrize("role", GRANTED)
def test_the_key_it_prints_is_opened_by_the_entry_it_prints(role, capsys):
    assert cli.main(["api-key", "--role", role, "--name", "web"]) == 0
    out = capsys.readouterr().out
    (key,) = re.findall(r"^  (syncrec_\S+)$", out, flags=re.MULTILINE)
    assert access_with(out).check([(b"x-api-key", key.encode())], role.split("+")[0], 0.0).name == "web"


def test_each_call_makes_another_key(capsys):
    for _ in range(2):
        cli.main(["api-key", "--role", "read", "--name", "web"])
    keys = re.findall(r"^  (syncrec_\S+)$", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(set(keys)) == 2


def test_a_key_from_standard_input_is_hashed_and_not_repeated(monkeypatch, capsys):
    key = new_key()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{key}\n"))
    assert cli.main(["api-key", "--role", "write", "--name", "web", "--hash"]) == 0
    out = capsys.readouterr().out
    assert key not in out
    assert access_with(out).check([(b"x-api-key", key.encode())], "write", 0.0).name == "web"


@pytest.mark.parametrize(
    ("words", "given", "line"),
    [
        (["--role", "read", "--name", "a:b"], "", "--name a:b: "),
        (["--role", "read", "--name", "a", "--hash"], "hunter2\n", "the key is shorter than 32 characters"),
        (["--role", "read", "--name", "a", "--hash"], "", "the key is shorter than 32 characters"),
    ],
)
def test_what_cannot_be_meant_is_one_line(monkeypatch, capsys, words, given, line):
    monkeypatch.setattr(sys, "stdin", io.StringIO(given))
    assert cli.main(["api-key", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"syncrec api-key: {line}")
    assert captured.err.count("\n") == 1
    assert "hunter2" not in captured.err


def test_it_needs_nothing_that_an_extra_installs():
    code = (
        "import sys; from syncrec import cli; cli.main(['api-key', '--role', 'read', '--name', 'a']); "
        "print(*{'pydantic', 'fastapi', 'numpy', 'redis', 'uvicorn'} & set(sys.modules), file=sys.stderr, end='')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
