"""Whether requests are traced: only if OpenTelemetry's own variables name where the spans go. What makes them is not loaded otherwise."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from formats.errors import WorkFailed
from service.logs import Occasionally

if TYPE_CHECKING:
    from service.spans import Tracing

log = logging.getLogger(__name__)

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
# What is left of the spans at the end may take this long; whoever ends the process waits for it.
FLUSH_TIMEOUT_S = 3.0
LOG_PERIOD_S = 60.0


def is_wanted() -> bool:
    """Whether the environment names an endpoint and does not switch traces off.

    Raises:
        WorkFailed: it names one that cannot be meant, or a protocol that is not spoken here.
    """
    name, endpoint = _first_set(ENDPOINTS)
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if not endpoint or is_off or os.environ.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return False
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise WorkFailed(f"{name}: not an http:// or https:// address")
    variable, protocol = _first_set(PROTOCOLS)
    if protocol not in {"", "http/protobuf"}:
        raise WorkFailed(f"{variable}={protocol}: spans are sent by http/protobuf only")
    return True


@asynccontextmanager
async def open_tracing() -> AsyncIterator["Tracing | None"]:
    """What makes spans of requests, or None if nobody wants them. At the end it sends what is left, within FLUSH_TIMEOUT_S.

    Raises:
        WorkFailed: spans are wanted and cannot be made.
    """
    if not is_wanted():
        yield None
        return
    try:
        from service.spans import make_tracing  # noqa: PLC0415 (it loads OpenTelemetry)
    except ModuleNotFoundError as error:
        raise WorkFailed(
            f"{_first_set(ENDPOINTS)[0]} is set and OpenTelemetry is not installed ({error.name}): "
            "install syncrec[tracing], or unset it"
        ) from error
    reports = _Reports()
    theirs = logging.getLogger("opentelemetry")
    theirs.addHandler(reports)
    theirs.propagate, before = False, theirs.propagate
    try:
        tracing = make_tracing()
        try:
            yield tracing
        finally:
            if not await asyncio.to_thread(tracing.close, FLUSH_TIMEOUT_S):
                log.warning("the latest spans were not taken within %g s and are lost", FLUSH_TIMEOUT_S)
    finally:
        theirs.propagate = before
        theirs.removeHandler(reports)


class _Reports(logging.Handler):
    """OpenTelemetry's warnings as ours, one a minute: its exporter complains of each batch that is not taken."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines = Occasionally(LOG_PERIOD_S)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line on without its traceback, or hold it back."""
        if (held_back := self._lines.now("traces")) is not None:
            log.warning("traces: %s", record.getMessage(), extra={"lines_held_back": held_back})


def _first_set(names: tuple[str, ...]) -> tuple[str, str]:
    """Name and value of the first variable that says something; the last name and "" if none does."""
    for name in names:
        if value := os.environ.get(name, "").strip():
            return name, value
    return names[-1], ""
