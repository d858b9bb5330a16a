"""Access: the one object that the door asks whether a request may pass."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.access.bucket import TokenBucket
from service.access.keys import ADMIN_KEYS, ApiKey, Role, read_keys
from service.errors import Forbidden, RateLimited, Unauthenticated
from service.settings import Settings

_BEARER = b"bearer "


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the name of its key (never the key itself); empty where no key is configured."""

    name: str


ANYBODY = Caller("")


class Access:
    """The configured keys and their token buckets. Without any key, everything is allowed to everybody.

    The buckets are this process's own: with N workers a key may pass up to N times as often. There is one per configured
    key and none else, so no caller can make memory grow.
    """

    def __init__(self, keys: Sequence[ApiKey], rate_per_s: float = 0, burst: int = 1) -> None:
        """Take the keys; rate_per_s 0: no limit."""
        self._known = tuple(
            (key, Caller(key.name), TokenBucket(rate_per_s, burst) if rate_per_s else None) for key in keys
        )
        self._has_admin = any("admin" in key.roles for key in keys)

    @property
    def is_open(self) -> bool:
        """Whether no key is configured at all."""
        return not self._known

    def check(self, headers: Iterable[tuple[bytes, bytes]], role: Role, now: float) -> Caller:
        """Let a request pass that needs `role`, or refuse it.

        Args:
            headers: as ASGI has them, names in lower case. The key comes as `Authorization: Bearer KEY` or `X-API-Key: KEY`.
            role: what the route needs.
            now: seconds of a clock that does not jump, such as time.monotonic().

        Raises:
            Unauthenticated: no key, an unknown one, or two different ones.
            Forbidden: the key does not have the role, or no key at all has the role admin.
            RateLimited: the key has been used too often; carries in how many seconds it may be again.
        """
        if not self._known:
            return ANYBODY
        if role == "admin" and not self._has_admin:
            raise Forbidden(f"no key may do this: {ADMIN_KEYS} is not set")
        key, caller, bucket = self._find(_given_key(headers))
        if role not in key.roles:
            raise Forbidden(
                f"this needs a key with the role {role}; the role of this one is {'+'.join(sorted(key.roles))}"
            )
        if bucket is not None and (retry_after_s := bucket.take(now)):
            raise RateLimited(retry_after_s)
        return caller

    def _find(self, given: bytes) -> tuple[ApiKey, Caller, TokenBucket | None]:
        digest = hashlib.sha256(given).digest()
        found = None
        # To the end, and each in constant time: how long it takes says nothing about any key.
        for known in self._known:
            if hmac.compare_digest(known[0].digest, digest):
                found = known
        if found is None:
            raise Unauthenticated("the API key is not known here")
        return found


def access_of(settings: Settings) -> Access:
    """What these settings allow.

    Raises:
        WrongUse: names the setting that cannot be meant, without a word of what stands there.
    """
    return Access(read_keys(settings.api_keys, settings.admin_keys), settings.rate_limit_per_s, settings.rate_burst)


def _given_key(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    given = None
    for name, value in headers:
        if name == b"x-api-key":
            key = value.strip()
        elif name == b"authorization" and value[:7].lower() == _BEARER:  # another scheme is a proxy's, not ours
            key = value[7:].strip()
        else:
            continue
        if given not in {None, key}:
            raise Unauthenticated("two different API keys were sent")
        given = key
    if not given:
        raise Unauthenticated("an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY")
    return given
