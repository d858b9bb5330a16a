"""Times as they come over HTTP."""

from datetime import UTC, datetime


def seconds_of(timestamp: float | str) -> float:
    """A time of the contract as seconds since 1970; text is ISO 8601, UTC where it names no zone.

    Raises:
        ValueError: text that is no time.
    """
    if not isinstance(timestamp, str):
        return timestamp
    moment = datetime.fromisoformat(timestamp)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
