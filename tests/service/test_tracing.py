"""Traces: spans as a collector receives them over real HTTP, and that without an endpoint there is nothing of it."""

import gzip
import logging
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from formats.errors import WorkFailed
from service.logs import JsonFormatter
from service.recommend import Recommender
from service.tracing import is_wanted
from tests.service.running import serve

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "shop=1"}


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


class Collector:
    """Takes spans over OTLP/HTTP; what it answers can be set."""

    def __init__(self):
        self.spans, self.resources, self.paths, self.status = [], [], [], 200
        self.got = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.paths.append(self.path)
                collector.got.set()
                if collector.status == 200:
                    if self.headers.get("content-encoding") == "gzip":
                        body = gzip.decompress(body)
                    collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def take(self, request):
        for of_resource in request.resource_spans:
            self.resources.append({one.key: value_of(one.value) for one in of_resource.resource.attributes})
            for scope in of_resource.scope_spans:
                self.spans += scope.spans

    @property
    def requests(self):
        return [span for span in self.spans if span.kind == Span.SPAN_KIND_SERVER]

    def children(self, span):
        return [one for one in self.spans if one.parent_span_id == span.span_id]


def attributes(span):
    return {one.key: value_of(one.value) for one in span.attributes}


@pytest.fixture
def collector():
    one = Collector()
    thread = threading.Thread(target=one.server.serve_forever)
    thread.start()
    yield one
    one.server.shutdown()
    one.server.server_close()
    thread.join()


@pytest.fixture
def to(collector, monkeypatch):
    """The environment that sends spans to the collector; they arrive when the service has ended."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    return collector


@pytest.fixture
def traced(to, models, redis_url):
    @contextmanager
    def run(**settings):
        with serve(models_dir=models, redis_url=redis_url, providers="cpu", redis_timeout_ms=5000, **settings) as one:
            yield one

    return run


def test_a_request_is_one_span_with_its_stages_within(traced, to, store):
    store("u-secret", [("Books", "B1")])
    with traced() as service:
        response = service.client.post("/recommend", json={"user_id": "u-secret"}, headers=CALLER)
    assert to.paths[0] == "/v1/traces"
    assert to.resources[0]["service.name"] == "syncrec"
    [span] = to.requests
    assert span.name == "POST /recommend"
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.trace_state) == (TRACE, PARENT, "shop=1")
    port = service.client.base_url.port
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/recommend",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": port,
        "syncrec.request_id": response.headers["x-request-id"],
        "syncrec.source": "model",
        "syncrec.model_version": "small-1",
        "syncrec.answers": 1,
    }
    stages = sorted(to.children(span), key=lambda one: one.start_time_unix_nano)
    assert [one.name for one in stages] == ["history", "queue", "inference"]
    assert {one.trace_id for one in stages} == {span.trace_id}
    said = dict(part.split(";dur=") for part in response.headers["server-timing"].split(", "))
    for one in stages:
        lasted_ms = (one.end_time_unix_nano - one.start_time_unix_nano) / 1e6
        assert lasted_ms == pytest.approx(float(said[one.name]), abs=2e-3)
    assert stages[-1].end_time_unix_nano <= span.end_time_unix_nano


def test_a_batch_is_one_span_whose_stages_are_the_slowest(traced, to, store):
    store("known", [("Books", "B1")])
    with traced() as service:
        service.client.post("/recommend/batch", json={"requests": [{"user_id": "known"}, {"user_id": "new"}]})
    [span] = to.requests
    assert span.name == "POST /recommend/batch"
    assert (attributes(span)["syncrec.source"], attributes(span)["syncrec.answers"]) == ("mixed", 2)
    assert [one.name for one in to.children(span)] == ["history", "queue", "inference"]


def test_no_id_of_a_user_or_an_item_is_in_any_span(traced, to, monkeypatch):
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")  # FastAPI's own spans name paths
    with traced() as service:
        service.client.get("/users/u-secret/history")
        service.client.delete("/users/u-secret")
        service.client.get("/items/Books/i-secret/similar")
        service.client.get("/u-secret?q=i-secret")
        service.recommend(user_id="u-secret", k=0)
        service.client.post(
            "/events", json={"events": [{"event_id": "e", "user_id": "u-secret", "item_id": "B1", "domain": "Books"}]}
        )
        service.recommend(user_id="u-secret", history=[{"domain": "Books", "item_id": "i-secret"}])
    names = {span.name for span in to.requests}
    assert names == {
        "GET /users/{user_id:id}/history",
        "DELETE /users/{user_id:id}",
        "GET /items/{domain}/{item_id:id}/similar",
        "GET",
        "POST /recommend",
        "POST /events",
    }
    assert not [span for span in to.spans if "secret" in str(span)]


@pytest.mark.parametrize(
    "given", ["", "00-0-0-01", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", "\xff" * 55, "x" * 5000]
)
def test_a_malformed_parent_begins_a_trace_of_its_own(traced, to, given):
    with traced() as service:
        headers = [("traceparent", given.encode("latin-1")), ("tracestate", b"=,=")]
        assert service.client.post("/recommend", json={"user_id": "u"}, headers=headers).status_code == 200
    [span] = to.requests
    assert span.parent_span_id == b""
    assert span.trace_id.hex() not in {TRACE, "0" * 32}


def test_what_the_caller_did_not_sample_is_not_sent(traced, to):
    with traced() as service:
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        assert service.client.post("/recommend", json={"user_id": "u"}, headers=unsampled).status_code == 200
        service.client.get("/healthz")
    assert [span.name for span in to.requests] == ["GET /healthz"]


def test_the_standard_variables_sample_and_name(traced, to, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-recommender")
    with traced() as service:
        service.recommend(user_id="u")
        service.client.post("/recommend", json={"user_id": "u"}, headers=CALLER)
    assert [span.trace_id.hex() for span in to.requests] == [TRACE]
    assert to.resources[0]["service.name"] == "shop-recommender"


def test_an_error_of_ours_is_an_error_and_one_of_the_caller_is_not(traced, to, monkeypatch):
    with traced() as service:
        service.recommend(user_id="u", k=0)
        monkeypatch.setattr(Recommender, "recommend", lambda *_: 1 / 0)
        service.recommend(user_id="u")
    wrong, bug = to.requests
    assert (attributes(wrong)["http.response.status_code"], wrong.status.code) == (422, Status.STATUS_CODE_UNSET)
    assert (attributes(bug)["http.response.status_code"], bug.status.code) == (500, Status.STATUS_CODE_ERROR)
    assert attributes(bug)["error.type"] == "500"
    assert "ZeroDivision" not in str(to.spans)


def test_an_unknown_method_is_no_name_of_a_span(traced, to):
    with traced() as service:
        assert service.client.request("SECRET", "/recommend").status_code in {400, 405}
        assert service.client.request("PROPFIND", "/recommend").status_code == 405
    assert [(span.name, attributes(span)["http.request.method"]) for span in to.requests] == [("HTTP", "_OTHER")]


def test_log_lines_of_a_request_carry_its_trace(traced, to, caplog, monkeypatch):
    lines = []

    class Keep(logging.Handler):
        def emit(self, record):
            lines.append(orjson.loads(JsonFormatter().format(record)))

    keep = Keep(logging.ERROR)
    logging.getLogger().addHandler(keep)
    try:
        with traced() as service:
            monkeypatch.setattr(Recommender, "recommend", lambda *_: 1 / 0)
            service.client.post("/recommend", json={"user_id": "u"}, headers=CALLER)
    finally:
        logging.getLogger().removeHandler(keep)
    [line] = [line for line in lines if line["message"] == "bug"]
    [span] = to.requests
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id.hex())
    assert line["request_id"] == attributes(span)["syncrec.request_id"]


def test_a_collector_that_fails_costs_no_request_and_one_line(traced, to, caplog, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    to.status = 400
    with traced() as service:
        for _ in range(5):
            to.got.clear()
            assert service.recommend(user_id="u").status_code == 200
            assert to.got.wait(10)
    assert len(to.paths) >= 5
    lines = [record for record in caplog.records if record.name.startswith(("service.tracing", "opentelemetry"))]
    assert [record.levelname for record in lines] == ["WARNING"]
    assert lines[0].exc_info is None


def test_a_collector_that_is_away_holds_up_neither_requests_nor_the_end(
    models, redis_url, collector, caplog, monkeypatch
):
    monkeypatch.setattr("service.tracing.FLUSH_TIMEOUT_S", 0.2)
    # Accepts connections and never answers.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}/x")
        with serve(models_dir=models, redis_url=redis_url) as service:
            for _ in range(20):
                assert service.recommend(user_id="u").status_code == 200
    assert "the latest spans were not taken within 0.2 s" in caplog.text


def test_without_an_endpoint_nothing_that_makes_spans_is_loaded():
    code = (
        "import asyncio, sys\n"
        "from service.app import create_app\n"
        "from service.tracing import open_tracing\n"
        "async def look():\n"
        "    async with open_tracing() as tracing:\n"
        "        assert tracing is None\n"
        "create_app()\n"
        "asyncio.run(look())\n"
        # Not all of OpenTelemetry: FastAPI loads its interfaces, and redis-py its metrics where they are installed.
        "makes_spans = ('service.spans', 'opentelemetry.sdk.trace', 'opentelemetry.exporter')\n"
        "assert not [name for name in sys.modules if name.startswith(makes_spans)]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"OMP_NUM_THREADS": "1"})


def test_an_untraced_application_is_not_wrapped(service):
    assert service.app._serve.__func__ is type(service.app).__mro__[1].__call__


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ftp://x"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        ),
    ],
)
def test_an_endpoint_that_cannot_be_meant_is_refused_by_variable(monkeypatch, variables, named):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WorkFailed, match=named):
        is_wanted()


@pytest.mark.parametrize(
    "variables",
    [{}, {"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_EXPORTER": "none"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": ""}],
)
def test_traces_can_be_switched_off(monkeypatch, variables):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9" if variables else "")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not is_wanted()


def test_an_endpoint_without_opentelemetry_is_refused_in_one_line(models, redis_url, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delitem(sys.modules, "service.spans", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(WorkFailed, match=r"install syncrec\[tracing\]") as refused, serve(models_dir=models):
        pass
    assert "\n" not in str(refused.value)
