"""A span per request, and within it what the answer says of its time: history, queue, inference. Loads OpenTelemetry.

Names are those of OpenTelemetry's conventions for HTTP servers, ours begin with `syncrec.`. No user or item id is in a span: of
the path only its pattern is.
"""

import threading
import time
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, format_span_id, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service.http.fast import App, Message, Receive, Scope, Send, route_of
from service.logs import trace_ids

METHODS = frozenset(["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"])
STAGES = ("history", "queue", "inference")
_HEADERS = {b"traceparent", b"tracestate"}
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """Makes the spans of one application and sends them from a thread of its own."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("syncrec.service")

    def around(self, app: App) -> App:
        """The application with a span for each request."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            start_ns = time.time_ns()
            method = scope["method"] if scope["method"] in METHODS else "_OTHER"
            span = self._tracer.start_span(
                "HTTP" if method == "_OTHER" else method,
                _caller(scope),
                SpanKind.SERVER,
                {"http.request.method": method, **_server(scope)},
                start_time=start_ns,
            )
            context = span.get_span_context()
            if context.is_valid:
                trace_ids.set((format_trace_id(context.trace_id), format_span_id(context.span_id)))
            status = 0

            async def send_on(message: Message) -> None:
                nonlocal status
                status = message.get("status", status)
                await send(message)

            try:
                await app(scope, receive, send_on)
            finally:
                if span.is_recording():
                    _describe(span, method, scope, status)
                    _add_stages(self._tracer, span, scope, start_ns)
                span.end()

        return traced

    def close(self, timeout_s: float) -> bool:
        """Send what is left. Returns whether that was done in time; it goes on then, in a thread that ends with the process."""
        flush = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        flush.start()
        flush.join(timeout_s)
        return not flush.is_alive()


def make_tracing() -> Tracing:
    """Spans sampled, batched and sent as OpenTelemetry's variables say."""
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):  # no variable gives a name
        resource = resource.merge(Resource({SERVICE_NAME: "syncrec"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def _caller(scope: Scope) -> Context:
    """The trace that the request is part of, by W3C's headers; an empty one if there is none, or it is malformed."""
    carrier = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS}
    return _propagator.extract(carrier, Context())


def _server(scope: Scope) -> dict[str, str | int]:
    found: dict[str, str | int] = {"url.scheme": scope["scheme"], "network.protocol.version": scope["http_version"]}
    if scope.get("server"):
        host, port = scope["server"]
        found["server.address"] = host
        if port is not None:  # a unix socket has none
            found["server.port"] = port
    return found


def _describe(span: Span, method: str, scope: Scope, status: int) -> None:
    route = route_of(scope)
    if route is not None:
        span.set_attribute("http.route", route)
        if method != "_OTHER":
            span.update_name(f"{method} {route}")
    span.set_attribute("syncrec.request_id", scope.get("request_id", ""))
    if not status:
        span.set_attribute("error.type", "client_left")
        return
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(StatusCode.ERROR)


def _add_stages(tracer: Tracer, span: Span, scope: Scope, start_ns: int) -> None:
    """Spans of the stages, one after the other from the request's begin: their lengths were measured, their places were not."""
    if (answered := scope.get("answered")) is None:
        return
    answers, spent_s = answered
    sources = {answer.source for answer in answers}
    attributes: dict[str, Any] = {
        "syncrec.source": sources.pop() if len(sources) == 1 else "mixed",
        "syncrec.model_version": answers[0].catalog.model_version,
        "syncrec.answers": len(answers),
    }
    span.set_attributes(attributes)
    within, begin_ns = set_span_in_context(span), start_ns
    for stage, seconds in zip(STAGES, spent_s, strict=True):
        end_ns = begin_ns + int(1e9 * seconds)
        if end_ns > begin_ns:
            tracer.start_span(stage, within, start_time=begin_ns).end(end_ns)
        begin_ns = end_ns
