"""Files that are replaced whole or not at all."""

import os
from pathlib import Path

from formats.errors import WorkFailed


def replace_file(file: Path, content: bytes | memoryview) -> None:
    """Give a file this content; a crash or a full disk on the way leaves the former file.

    Raises:
        WorkFailed: it cannot be written.
    """
    temporary = file.with_name(f".{file.name}.partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        raise WorkFailed(f"cannot write {file}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
