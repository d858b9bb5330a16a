"""The rows of the event log: a recommendation as it was served, an event as a client told it; and how Redis carries them.

A user who is in experiments of several layers has a row of each: a recommendation is known by its id and the experiment.
"""

import math
from datetime import UTC, datetime
from uuid import UUID

import msgspec

MAX_AGE_S = 90 * 86_400  # of a recommendation when an event of it comes
MAX_AHEAD_S = 86_400  # clocks of browsers are wrong


class ServedList(msgspec.Struct, frozen=True, array_like=True):
    """One domain's list as shown, by rank.

    team: with interleaving, whose each rank is.
    explored, propensity: the rank (from 1) that was drawn instead of ranked, and how probable what it shows was.
    """

    domain: str
    item_ids: list[str]
    team: list[str] | None = None
    explored: int | None = None
    propensity: float | None = None


class Served(msgspec.Struct, frozen=True, array_like=True, kw_only=True, tag="r"):
    """A recommendation that was served, or refused to a user who is in an experiment (error, without lists).

    recommendation_id: UUIDv7, which says when.
    experiment, variant, reason: of an assignment; None: the user is in none.
    source: model, popularity or degraded.
    interleaved: how lists were merged; None: they were not.
    """

    recommendation_id: str
    user_id: str
    experiment: str | None = None
    variant: str | None = None
    reason: str | None = None
    source: str
    model_version: str
    latency_ms: float
    error: bool = False
    interleaved: str | None = None
    lists: list[ServedList]


class Told(msgspec.Struct, frozen=True, array_like=True, kw_only=True, tag="e"):
    """An event of a client. timestamp: seconds since 1970; event: interaction, impression or click."""

    user_id: str
    item_id: str
    domain: str
    timestamp: float
    event: str
    event_id: str
    recommendation_id: str | None = None
    rank: int | None = None


Row = Served | Told

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Row).decode


def encode(row: Row) -> bytes:
    """What `decode` reads.

    Raises:
        ValueError, TypeError, OverflowError: a value that is none of its field.
    """
    return _encode(row)


def decode(raw: bytes) -> Row | None:
    """A row, or None: written by a version that this one does not know, or not a row."""
    try:
        row: Row = _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return row if _can_be_meant(row) else None


def milliseconds_of(recommendation_id: str) -> int | None:
    """When a recommendation was made, in milliseconds since 1970, from its UUIDv7; None: it is none."""
    try:
        uuid = UUID(recommendation_id)
    except ValueError:
        return None
    return uuid.int >> 80 if uuid.version == 7 else None


def day_of(row: Row) -> str:
    """The day that a row lies under, as 2026-11-24, UTC.

    Raises:
        ValueError: a recommendation whose id is no UUIDv7.
    """
    return datetime.fromtimestamp(filed_at(row) // 1000, UTC).date().isoformat()


def filed_at(row: Row) -> int:
    """When its recommendation was made, else when it happened, in milliseconds since 1970.

    Raises:
        ValueError: a recommendation whose id is no UUIDv7.
    """
    made = None if row.recommendation_id is None else milliseconds_of(row.recommendation_id)
    if isinstance(row, Served):
        if made is None:
            raise ValueError("a recommendation whose id is no UUIDv7")
        return made
    # An id that a client made up must not spread files over all days.
    if made is not None and -MAX_AHEAD_S <= row.timestamp - made / 1000 <= MAX_AGE_S:
        return made
    return int(row.timestamp * 1000)


def _can_be_meant(row: Row) -> bool:
    if isinstance(row, Served):
        made = milliseconds_of(row.recommendation_id)
        return made is not None and made < 253_402_300_800_000  # year 10,000
    return math.isfinite(row.timestamp) and 0 <= row.timestamp < 253_402_300_800
