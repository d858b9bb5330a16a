"""One event of `POST /events`, and why it cannot be taken."""

from collections.abc import Container
from typing import Annotated, Literal

import msgspec

from service.history.packed import MAX_TIMESTAMP
from service.timestamps import seconds_of

MAX_ID_CHARS = 256
MAX_AHEAD_S = 86_400  # clocks of browsers are wrong; an event of next year would be the newest for a year

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]
Kind = Literal["interaction", "impression", "click"]


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a shop tells. timestamp: seconds since 1970 or ISO 8601; when the event arrives, if it says none."""

    event_id: Id
    user_id: Id
    item_id: Id
    domain: Id
    event: Kind = "interaction"
    timestamp: float | Annotated[str, msgspec.Meta(max_length=64)] | None = None
    recommendation_id: Id | None = None
    rank: Annotated[int, msgspec.Meta(ge=1)] | None = None


class Unusable(Exception):  # noqa: N818
    """An event that cannot be taken; the text says why and holds no value of the event but its domain."""


_decode = msgspec.json.Decoder(Event).decode


def read_event(raw: bytes | msgspec.Raw, domains: Container[str], now: float) -> tuple[Event, float]:
    """An event and its time.

    Args:
        raw: one JSON value.
        domains: the known ones.
        now: seconds since 1970.

    Returns:
        The event, and its time in seconds since 1970.

    Raises:
        Unusable: it is none, its domain is unknown, or its time cannot be meant.
    """
    try:
        event = _decode(raw)
    except msgspec.MsgspecError as error:
        raise Unusable(str(error)) from None
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None
    if event.domain not in domains:
        raise Unusable(f"domain: unknown domain '{event.domain}'")
    return event, _time_of(event, now)


def _time_of(event: Event, now: float) -> float:
    if event.timestamp is None:
        return now
    try:
        seconds = seconds_of(event.timestamp)
    except ValueError:
        raise Unusable("timestamp: neither seconds since 1970 nor ISO 8601") from None
    if not 0 <= seconds <= MAX_TIMESTAMP:
        raise Unusable("timestamp: before 1970 or after 2106; seconds are expected, not milliseconds")
    if seconds > now + MAX_AHEAD_S:
        raise Unusable("timestamp: more than a day in the future")
    return seconds
