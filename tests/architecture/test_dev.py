"""`./dev`: what it does before anything is installed. The installation itself is what every run of the tests went through."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    """A checkout in a folder with a space, with just what `./dev` looks at; its environment counts as installed."""
    folder = tmp_path / "a checkout"
    (folder / "requirements").mkdir(parents=True)
    shutil.copy(ROOT / "dev", folder)
    for lock in ("dev.txt", "torch.txt"):
        shutil.copy(ROOT / "requirements" / lock, folder / "requirements")
    return folder


def dev(script, *words, **environment):
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run([script, *words], env=env, capture_output=True, text=True, timeout=60, check=False)


def installed(venv, checkout):
    """An environment that says it is that of this checkout; its python prints what it is called with."""
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (venv / "bin" / "python").chmod(0o755)
    (venv / "pyvenv.cfg").touch()
    locks = "".join((checkout / "requirements" / name).read_text() for name in ("dev.txt", "torch.txt"))
    checksum = subprocess.run(["cksum"], input=locks, capture_output=True, text=True, check=True).stdout
    (venv / ".installed").write_text(f"{checksum}{checkout}\n")


def test_alone_it_explains_itself(checkout):
    result = dev(checkout / "dev")
    assert result.returncode == 0
    assert all(word in result.stdout for word in ("demo", "test", "check", "run", "SYNCREC_VENV"))
    assert dev(checkout / "dev", "no-such-command").returncode == 2


def test_an_installed_environment_is_used_as_it_is_and_words_arrive_unchanged(checkout):
    installed(checkout / ".venv", checkout)
    result = dev(checkout / "dev", "run", "prepare", "two words.csv")
    assert result.stdout == "-P|-m|syncrec|prepare|two words.csv|"
    assert result.stderr == ""


def test_through_a_link_it_is_the_same_checkout(checkout, tmp_path):
    installed(checkout / ".venv", checkout)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "link").symlink_to(checkout / "dev")
    assert dev(tmp_path / "elsewhere" / "link", "run", "x").stdout == "-P|-m|syncrec|x|"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["link"]


@pytest.mark.parametrize("name", ["thesis.txt", "pyvenv.cfg"])
def test_a_folder_or_environment_of_somebody_else_is_never_removed(checkout, tmp_path, name):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / name).write_text("years of work")
    result = dev(checkout / "dev", "run", "x", SYNCREC_VENV=str(precious))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert (precious / name).read_text() == "years of work"


def test_a_place_that_cannot_be_written_is_one_line(checkout):
    result = dev(checkout / "dev", "run", "x", SYNCREC_VENV="/proc/x")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "SYNCREC_VENV" in result.stderr


def test_an_interpreter_that_is_too_old_or_missing_is_one_line(checkout):
    result = dev(checkout / "dev", "run", "x", PYTHON="/no such/python")
    assert result.returncode == 1
    assert "3.11" in result.stderr


def test_the_lock_of_a_dead_installation_is_taken_over(checkout):
    """It then goes on to install, which the interpreter here refuses."""
    lock = checkout / ".venv.lock"
    lock.mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    (lock / "pid").write_text(f"{gone.pid}\n")
    python = checkout / "python"
    python.write_text('#!/bin/sh\n[ "$1" = -c ]\n')
    python.chmod(0o755)
    assert dev(checkout / "dev", "run", "x", PYTHON=str(python)).returncode != 0
    assert not lock.exists()
