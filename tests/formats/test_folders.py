import errno
import os
from pathlib import Path

import pytest

from formats.errors import WorkFailed, WrongUse
from formats.folders import new_folder


def nothing_but(parent, *names):
    return sorted(file.name for file in parent.iterdir()) == sorted(names)


def test_the_folder_appears_only_when_the_block_has_ended(tmp_path):
    with new_folder(tmp_path / "out") as folder:
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("content")
        assert not (tmp_path / "out").exists()
        assert folder.parent == tmp_path  # the same file system, or it could not be renamed
    assert (tmp_path / "out" / "part" / "file").read_text() == "content"
    assert nothing_but(tmp_path, "out")


def test_parents_are_made(tmp_path):
    with new_folder(tmp_path / "a" / "b" / "out") as folder:
        (folder / "file").write_text("x")
    assert (tmp_path / "a" / "b" / "out" / "file").exists()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, WrongUse])
def test_an_error_in_the_block_leaves_nothing(tmp_path, error):
    def fail():
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("x")
            raise error

    with pytest.raises(error):
        fail()
    assert nothing_but(tmp_path)


def test_a_full_disk_is_a_clear_failure_and_leaves_nothing(tmp_path):
    def fail():
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("x")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(WorkFailed, match=r"cannot write .*out: No space left on device"):
        fail()
    assert nothing_but(tmp_path)


def test_a_disk_that_fills_up_while_syncing_leaves_nothing(tmp_path, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail():
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("x")
            monkeypatch.setattr("formats.folders.os.fsync", full)

    with pytest.raises(WorkFailed, match="No space left on device"):
        fail()
    monkeypatch.undo()
    assert nothing_but(tmp_path)


def test_a_parent_that_is_a_file_is_a_clear_failure(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkFailed, match="cannot write"), new_folder(tmp_path / "file" / "out"):
        pass
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "broken link"])
def test_what_exists_is_refused_and_left_alone(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "broken link":
        out.symlink_to(tmp_path / "nowhere")
    else:
        out.mkdir()
        if kind == "folder":
            (out / "mine").write_text("mine")
    before = sorted(out.rglob("*"))
    with pytest.raises(WrongUse, match="exists already"), new_folder(out):
        pytest.fail("the block must not run")
    assert sorted(out.rglob("*")) == before
    assert nothing_but(tmp_path, "out")


def test_what_appears_meanwhile_is_not_overwritten(tmp_path):
    def race():
        with new_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("ours")
            (tmp_path / "out").mkdir()
            (tmp_path / "out" / "file").write_text("theirs")

    with pytest.raises(WorkFailed, match="cannot write"):
        race()
    assert (tmp_path / "out" / "file").read_text() == "theirs"
    assert nothing_but(tmp_path, "out")


def test_every_file_is_synced_before_the_rename_and_the_parent_after(tmp_path, monkeypatch):
    done = []
    real = os.fsync

    def fsync(descriptor):
        done.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), (tmp_path / "out").exists()))
        real(descriptor)

    monkeypatch.setattr("formats.folders.os.fsync", fsync)
    with new_folder(tmp_path / "out") as folder:
        (folder / "file").write_text("x")
    assert (str(folder / "file"), False) in done
    assert done[-1] == (str(tmp_path), True)
