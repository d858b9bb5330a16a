"""API keys: how one is made, and what the settings hold of it, which is a name, roles and a hash.

The hash is one round of SHA-256, without salt. Slow, salted password hashes make guessing dear where people choose the
secret; these keys are 256 random bits, which nobody guesses at any speed, and a slow hash would cost every request
its milliseconds. So a key is never taken from a person's choice: `new_key` makes it, and `hash_key` refuses short ones.
"""

import hashlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from formats.errors import WrongUse

Role = Literal["read", "write", "admin"]

API_KEYS = "SYNCREC_API_KEYS"
ADMIN_KEYS = "SYNCREC_ADMIN_KEYS"

# What a key of this role may do. An administrator does not need a second key to look at what was administered.
GRANTED: dict[str, frozenset[Role]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"write"}),
    "read+write": frozenset({"read", "write"}),
    "admin": frozenset({"read", "write", "admin"}),
}

# So that programs that look for leaked secrets can know one.
PREFIX = "syncrec_"
MIN_KEY_CHARACTERS = 32
_NAME = r"[A-Za-z0-9._-]{1,64}"
_HASH = r"[0-9a-fA-F]{64}"
_ENTRIES = {
    API_KEYS: ("NAME:ROLE:HASH", re.compile(rf"({_NAME}):(read|write|read\+write):({_HASH})", re.ASCII)),
    ADMIN_KEYS: ("NAME:HASH", re.compile(rf"({_NAME})(:)({_HASH})", re.ASCII)),
}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the service knows it. The name is for logs, metrics and rotation; digest: SHA-256, 32 bytes."""

    name: str
    roles: frozenset[Role]
    digest: bytes = field(repr=False)


def new_key() -> str:
    """A fresh key: 256 random bits in characters that need no quoting anywhere."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_key(key: str) -> str:
    """SHA-256 of a key, 64 hex digits.

    Raises:
        WrongUse: too short to be random enough for a fast hash, or with characters that no header can carry.
    """
    if len(key) < MIN_KEY_CHARACTERS:
        raise WrongUse(
            f"the key is shorter than {MIN_KEY_CHARACTERS} characters, which can be guessed; make a random one"
        )
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        raise WrongUse("the key has characters other than visible ASCII, which a header cannot carry")
    return hashlib.sha256(key.encode()).hexdigest()


def setting_entry(name: str, role: str, key: str) -> tuple[str, str]:
    """The variable that a key of this role belongs into, and its entry there.

    Args:
        role: one of GRANTED.

    Raises:
        WrongUse: the name or the key cannot be one.
    """
    if not re.fullmatch(_NAME, name, re.ASCII):
        raise WrongUse(f"--name {name}: 1 to 64 letters, digits, dots, dashes and underscores")
    return (ADMIN_KEYS, f"{name}:{hash_key(key)}") if role == "admin" else (API_KEYS, f"{name}:{role}:{hash_key(key)}")


def read_keys(api_keys: str, admin_keys: str) -> tuple[ApiKey, ...]:
    """The keys of both settings.

    Args:
        api_keys: `NAME:ROLE:HASH`, separated by commas; ROLE is read, write or read+write.
        admin_keys: `NAME:HASH`, separated by commas.

    Raises:
        WrongUse: an entry cannot be meant; says which, and never what stands there, since it may be a plain key.
    """
    keys = [
        *(ApiKey(name, GRANTED[role], digest) for name, role, digest in _entries(API_KEYS, api_keys)),
        *(ApiKey(name, GRANTED["admin"], digest) for name, _, digest in _entries(ADMIN_KEYS, admin_keys)),
    ]
    names, digests = [key.name for key in keys], [key.digest for key in keys]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise WrongUse(
            f"{API_KEYS}, {ADMIN_KEYS}: two keys are named {twice}; name each, also in a rotation: {twice}-2"
        )
    if again := next((key.name for key in keys if digests.count(key.digest) > 1), None):
        raise WrongUse(f"{API_KEYS}, {ADMIN_KEYS}: the key {again} stands there twice; its role would not be clear")
    return tuple(keys)


def _entries(variable: str, text: str) -> Iterator[tuple[str, str, bytes]]:
    form, pattern = _ENTRIES[variable]
    for number, entry in enumerate(text.split(",") if text.strip() else [], start=1):
        found = pattern.fullmatch(entry.strip())
        if found is None:
            raise WrongUse(
                f"{variable}: entry {number} is not {form} (role: read, write or read+write; hash: 64 hex digits); "
                "a key itself never belongs there: hash it with `syncrec api-key --hash`"
            )
        name, role, digest = found.groups()
        yield name, role, bytes.fromhex(digest)
