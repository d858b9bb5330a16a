import os

import pytest

from formats.errors import WorkFailed
from formats.files import replace_file


def test_the_content_is_replaced_and_nothing_else_left_behind(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"former")
    replace_file(file, b"new")
    assert file.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failure_on_the_way_leaves_the_former_file(tmp_path, monkeypatch):
    file = tmp_path / "f"
    file.write_bytes(b"former")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkFailed, match="No space left on device"):
        replace_file(file, b"new")
    assert file.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(WorkFailed, match=r"cannot write .*away/f: No such file"):
        replace_file(tmp_path / "away" / "f", b"new")
