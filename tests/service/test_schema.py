"""The running service against its own OpenAPI: generated requests, and by name those that once found something."""

import json
import socket
import subprocess
import sys

import pytest

from service.http.problems import MEDIA_TYPE
from tests.service.running import serve
from tests.service.test_gate import KEYS, digest

PROBLEM = {"type", "title", "status", "detail", "request_id", "errors"}

# What generated values rarely hit, and what schemathesis expects and we mean otherwise.
CONFIG = """
[dictionaries.domains]
values = ["Books", "Toys", "Games"]
[dictionaries.versions]
values = ["small-1"]
[dictionaries.items]
values = ["B1", "both", "T4", "a/b", "%2e%2e", "\\n"]

[parameters]
domain = { dictionary = "domains", probability = 0.7 }
version = { dictionary = "versions", probability = 0.5 }
item_id = { dictionary = "items", probability = 0.5 }

# Which domains, categories and times a model understands is not in OpenAPI: a well-formed request may be 422.
[checks]
positive_data_acceptance.enabled = false

# One event that is wrong is named in the answer and does not refuse the others.
[[operations]]
include-name = "POST /events"
checks.negative_data_rejection.enabled = false

# An id may hold slashes, so `/users/u/history` is also the user `u/history` for another method.
[[operations]]
include-path-regex = "^/(users/{user_id}/history|items/{domain}/{item_id}/similar)$"
checks.unsupported_method.enabled = false
"""


def schemathesis(tmp_path, service, *options):
    """Run it over a service; fails with all that it found, and how to repeat each."""
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color"),
        *("run", f"{service.client.base_url}/openapi.json", "--generation-deterministic", "--continue-on-failure"),
        *("--no-shrink", "--request-timeout", "20", "--warnings", "off", *options),
    ]
    ran = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2000:]
    return ran.stdout


@pytest.fixture
def patient(models, redis_url):
    """A service that is given time: what is looked for here is not how it answers under load."""
    with serve(
        models_dir=models, redis_url=redis_url, providers="cpu", redis_timeout_ms=5000, request_timeout_ms=20_000
    ) as running:
        yield running


def test_every_answer_is_as_openapi_says(patient, tmp_path, caplog):
    said = schemathesis(tmp_path, patient, "--max-examples", "20", "--exclude-checks", "ignored_auth")
    assert "Stateful" in said
    assert "bug" not in [record.message for record in caplog.records]


def test_every_answer_is_as_openapi_says_where_keys_are_needed(models, redis_url, tmp_path, caplog):
    keys = {"api_keys": f"reader:read:{digest('reader')}", "admin_keys": f"admin:{digest('admin')}"}
    with serve(models_dir=models, redis_url=redis_url, redis_timeout_ms=5000, request_timeout_ms=20_000, **keys) as one:
        key = f"Authorization: Bearer {KEYS['admin']}"
        schemathesis(tmp_path, one, "--max-examples", "5", "--phases", "examples,coverage", "--header", key)
    assert "bug" not in [record.message for record in caplog.records]


def raw(service, request):
    """Send bytes that no client library would, and read one answer: its status, headers and body."""
    host, port = service.client.base_url.host, service.client.base_url.port
    with socket.create_connection((host, port), timeout=20) as client, client.makefile("rb") as answer:
        client.sendall(request)
        status = int(answer.readline().split()[1])
        headers = {}
        while line := answer.readline().strip():
            name, _, value = line.partition(b":")
            headers[name.strip().lower().decode()] = value.strip().decode()
        length = 0 if request.startswith(b"HEAD ") else int(headers.get("content-length", 0))
        return status, headers, answer.read(length)


def assert_problem(status, headers, body):
    """A clean problem document of the caller's doing, which holds nothing of the service's inside."""
    assert 400 <= status < 500
    assert headers["content-type"] == MEDIA_TYPE
    problem = json.loads(body)
    assert set(problem) == PROBLEM
    assert problem["status"] == status
    for inner in ("Traceback", "site-packages", ".py", "pydantic", "msgspec", "Error("):
        assert inner not in body.decode()


def send(service, method, path, body, kind="application/json"):
    response = service.client.request(method, path, content=body, headers={"content-type": kind})
    return response.status_code, response.headers, response.content


BODIES = {
    "a lone surrogate": b'{"user_id": "\\ud800"}',
    "surrogates the wrong way round": b'{"user_id": "\\udc00\\ud800"}',
    "a surrogate as bytes": b'{"user_id": "\xed\xa0\x80"}',
    "bytes that are no UTF-8": b'{"user_id": "\xff\xfe"}',
    "UTF-16": '{"user_id": "u"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"user_id": "u"}',
    "NaN": b'{"user_id": "u", "k": NaN}',
    "infinity": b'{"user_id": "u", "history": [{"item_id": "a", "domain": "Books", "timestamp": Infinity}]}',
    "a number too large": b'{"user_id": "u", "history": [{"item_id": "a", "domain": "Books", "timestamp": 1e999}]}',
    "a negative number": b'{"user_id": "u", "k": -1}',
    "a huge number": b'{"user_id": "u", "k": ' + b"9" * 5000 + b"}",
    "brackets": b"[" * 200_000,
    "nesting in a field": b'{"available": ' + b'{"a":' * 50_000,
    "nothing": b"",
    "NUL": b"\x00",
    "null": b"null",
    "a form": b"user_id=u",
    "an id too long": b'{"user_id": "' + b"u" * 257 + b'"}',
    "an id too short": b'{"user_id": ""}',
    "text after the end": b'{"user_id": "u"} {}',
    "a comment": b'{"user_id": "u" /* */}',
}


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/recommend"), ("POST", "/recommend/batch"), ("POST", "/events"), ("PUT", "/items/Books/B1")],
)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_cannot_be_meant_is_a_clean_422(service, method, path, body):
    status, headers, answer = send(service, method, path, body)
    assert_problem(status, headers, answer)
    assert status == 422


@pytest.mark.parametrize(
    "field", ["user_id", "item_id", "domain", "event_id", "recommendation_id", "event", "timestamp"]
)
@pytest.mark.parametrize("value", [b'"\\ud800"', b"NaN", b"-1e400", b"[[]]", b'"' + b"x" * 5000 + b'"', b'"\x00"'])
def test_an_event_that_cannot_be_meant_is_rejected_or_the_call_is(service, field, value):
    event = {"event_id": b'"e"', "user_id": b'"u"', "item_id": b'"B1"', "domain": b'"Books"'} | {field: value}
    body = b'{"events": [{%b}]}' % b", ".join(b'"%b": %b' % (name.encode(), text) for name, text in event.items())
    status, headers, answer = send(service, "POST", "/events", body)
    if status == 202:
        [rejected] = json.loads(answer)["rejected"]
        assert rejected["index"] == 0
        assert "Error(" not in rejected["reason"]
    else:
        assert_problem(status, headers, answer)


@pytest.mark.parametrize("name", ["user_id", "k"])
def test_of_a_name_that_stands_twice_the_last_counts(service, name):
    first, last = {"user_id": (b'"a"', b'"b"'), "k": (b"1", b"2")}[name]
    body = b'{"user_id": "b", "%b": %b, "%b": %b}' % (name.encode(), first, name.encode(), last)
    status, _, answer = send(service, "POST", "/recommend", body)
    answer = json.loads(answer)
    assert (status, answer["user_id"]) == (200, "b")
    if name == "k":
        assert [len(items) for items in answer["domains"].values()] == [2, 2, 2]


@pytest.mark.parametrize(
    "user_id", ["\n", "a\nb", "a\n", "\u2028", "\x00", "a/b", "..", "%2e", "?", "#", "é𝄞", " ", "x" * 256]
)
def test_ids_of_any_text_are_found_by_their_path(service, user_id):
    """A line break in an id was no match for the route: 404, and such a user could not be erased."""
    path = "".join(f"%{byte:02x}" for byte in user_id.encode())
    event = {"event_id": f"e-{user_id[:200]}", "user_id": user_id, "item_id": "B4", "domain": "Books"}
    assert service.client.post("/events", json={"events": [event]}).json()["accepted"] == 1
    history = service.client.get(f"/users/{path}/history").json()
    assert (history["user_id"], len(history["events"])) == (user_id, 1)
    assert service.client.delete(f"/users/{path}").json() == {"user_id": user_id, "erased": True}
    assert service.client.delete(f"/users/{path}").json() == {"user_id": user_id, "erased": False}


@pytest.mark.parametrize("path", ["%ff", "%ed%a0%80", "x" * 257, "%00" * 257, "%", "%zz"])
@pytest.mark.parametrize("route", ["/users/{}/history", "/items/{}/B1/similar", "/items/Books/{}/similar"])
def test_a_path_that_is_no_text_or_too_long_is_no_error_of_ours(service, route, path):
    target = route.format(path).encode()
    status, headers, body = raw(service, b"GET %b HTTP/1.1\r\nhost: x\r\n\r\n" % target)
    if status != 200:
        assert_problem(status, headers, body)


@pytest.mark.parametrize("path", ["/docs%0a", "/openapi.json%0a", "/metrics%0a"])
def test_a_line_break_opens_nothing_that_is_closed(models, redis_url, path):
    with serve(models_dir=models, redis_url=redis_url, docs=False, metrics=False) as service:
        assert service.client.get(path).status_code == 404


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "multipart/form-data", "application/xml", "x", "\xff", ""])
@pytest.mark.parametrize(("method", "path"), [("POST", "/recommend"), ("POST", "/events"), ("PUT", "/items/Books/B1")])
def test_another_content_type_is_refused(service, method, path, kind):
    response = service.client.request(
        method, path, content=b'{"user_id": "u"}', headers={"content-type": kind.encode("latin-1")}
    )
    assert_problem(response.status_code, response.headers, response.content)


@pytest.mark.parametrize(
    "path", ["/recommend", "/recommend/batch", "/events", "/models/rollback", "/items/Books/B1", "/healthz"]
)
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PROPFIND", "get", "recommend"])
def test_other_methods_are_405(service, method, path):
    """What no server speaks ends as a 400 of uvicorn, before the service."""
    status, headers, body = raw(service, b"%b %b HTTP/1.1\r\nhost: x\r\n\r\n" % (method.encode(), path.encode()))
    assert status in {400, 405}
    if status == 405 and method != "HEAD":
        assert_problem(status, headers, body)
        assert headers["allow"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/items/Books/B1"), ("POST", "/recommend"), ("GET", "/healthz")])
def test_a_body_in_pieces_is_counted_on_every_route(service, method, path):
    """A body without a length was counted on the hot routes only."""
    pieces = (b" " * 2**18 for _ in range(8))
    response = service.client.request(method, path, content=pieces, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert_problem(response.status_code, response.headers, response.content)


def test_a_body_in_pieces_is_put_together_on_every_route(service):
    pieces = iter([b'{"avail', b'able": ', b"false}"])
    response = service.client.put("/items/Books/B1", content=pieces, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["available"]) == (200, False)


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: -1",
        b"content-length: 99999999999999999999999",
        b"content-length: abc",
        b"content-length: 2\r\ntransfer-encoding: chunked",
        b"x-request-id: \x00",
        b"x-request-timeout-ms: " + b"9" * 5000,
        b"x-request-timeout-ms: \xb2",
        b"authorization: \xff",
        b"authorization: " + b"x" * 20_000,
    ],
)
def test_headers_that_cannot_be_meant_are_no_error_of_ours(service, head):
    status, _, _ = raw(service, b"POST /recommend HTTP/1.1\r\nhost: x\r\n%b\r\n\r\n{}" % head)
    assert 200 <= status < 500
    assert service.client.get("/healthz").status_code == 200


def test_every_refusal_has_its_status_in_openapi(service):
    """What any route may answer: no key, a wrong one, too often, our bug."""
    for path, operations in service.client.get("/openapi.json").json()["paths"].items():
        for operation in operations.values():
            if path not in {"/healthz", "/readyz", "/metrics", "/recommend.js"}:
                assert {"401", "403", "429", "500"} <= set(operation["responses"]), path
