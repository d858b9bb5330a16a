"""Log lines as JSON, one a line on stderr, with the id of the request that they are about."""

import logging
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime

import orjson

# Set by the door for each request; empty outside of one.
request_id: ContextVar[str] = ContextVar("request_id", default="")
# Trace and span of the request, in hexadecimal digits, where requests are traced.
trace_ids: ContextVar[tuple[str, str] | None] = ContextVar("trace_ids", default=None)

_KNOWN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record and its `extra` fields as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        if traced := trace_ids.get():
            line["trace_id"], line["span_id"] = traced
        line |= {name: value for name, value in vars(record).items() if name not in _KNOWN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def set_up_logging(level: str) -> None:
    """Write our lines and uvicorn's as JSON; called by the command, not by the application."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


class Occasionally:
    """Lets one line a second through per key, and counts the rest: an outage must not become a flood of lines."""

    def __init__(self, period_s: float = 1.0) -> None:
        self._period_s = period_s
        self._last: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def now(self, key: str) -> int | None:
        """How many lines were held back since the last one, or None: hold this one back too."""
        now = time.monotonic()
        if now - self._last.get(key, -self._period_s) < self._period_s:
            self._held_back[key] = self._held_back.get(key, 0) + 1
            return None
        self._last[key] = now
        return self._held_back.pop(key, 0)
