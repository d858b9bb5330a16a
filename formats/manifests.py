"""What the manifests of datasets and bundles have in common: JSON with a schema version, and checksums of files."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from formats.errors import WorkFailed

Manifest = TypeVar("Manifest", bound=BaseModel)


def read_json_object(file: Path, schema_version: int, missing: str) -> tuple[bytes, dict[str, Any]]:
    """The bytes and content of a manifest of this schema version.

    Args:
        file: the manifest.
        schema_version: the one that this program reads.
        missing: what the error says beside "missing".
    Raises:
        WorkFailed: it is missing, no JSON object, or of another version.
    """
    try:
        text = file.read_bytes()
        content = json.loads(text)
    except FileNotFoundError as error:
        raise WorkFailed(f"{file}: missing{missing}") from error
    except OSError as error:
        raise WorkFailed(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WorkFailed(f"{file}: not JSON: {error}") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != schema_version:
        raise WorkFailed(f"{file}: schema_version: {version!r}, this program reads {schema_version}")
    return text, content


def checked(file: Path, content: dict[str, Any], kind: type[Manifest]) -> Manifest:
    """The content as a manifest.

    Raises:
        WorkFailed: names the first field that does not fit.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise WorkFailed(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
