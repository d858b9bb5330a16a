"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from formats.errors import WorkFailed, WrongUse


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    Every file is synced before the rename, so that a power cut leaves the whole folder or none.

    Raises:
        WrongUse: `path` exists already; nothing is touched.
        WorkFailed: the parent cannot be written, or the disk is full.
    """
    if path.exists() or path.is_symlink():
        raise WrongUse(f"{path} exists already: name another folder or remove it first")
    # The name says whose it is, so that the remains of a killed run are recognised and removed by hand or by the next.
    temporary = path.parent / f".{path.name}.{uuid4().hex[:8]}.partial"
    try:
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*"):
                _sync(file)
            # On POSIX, renaming onto an empty folder succeeds: whoever made one meanwhile loses nothing.
            temporary.rename(path)
            _sync(path.parent)
        except OSError as error:
            raise WorkFailed(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
