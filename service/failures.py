"""Failures of Redis: which they are, and in one word."""

from redis.exceptions import RedisError

REDIS_FAILURES = (RedisError, OSError, TimeoutError)


def short_reason(error: Exception) -> str:
    """For metrics and log lines: the class, never the text, which may hold an address or a user's key."""
    return {"TimeoutError": "timeout", "ConnectionError": "connection"}.get(type(error).__name__, type(error).__name__)
