"""One deadline per request, said by the caller or the settings; and nothing is computed for who has left."""

import re
import socket
import threading
import time

import pytest

from service.ranking.session import OnnxSession
from tests.service.running import serve, wait_for

BODY = {"user_id": "u1", "history": [{"item_id": "B1", "domain": "Books"}]}


@pytest.fixture
def gate(monkeypatch):
    """The model waits at this gate; batches are noted."""

    class Gate(threading.Event):
        batches = ()

    gate, run = Gate(), OnnxSession.run
    gate.batches = []

    def wait(session, batch):
        gate.batches.append(len(batch.history))
        gate.wait(20)
        return run(session, batch)

    with monkeypatch.context() as patched:
        yield patched, wait, gate


def ask(service, timeout_ms):
    return service.client.post("/recommend", json=BODY, headers={"X-Request-Timeout-Ms": str(timeout_ms)})


def test_the_caller_s_deadline_holds_and_never_exceeds_the_setting(models, redis_url, gate):
    patched, wait, gate = gate
    with serve(models_dir=models, redis_url=redis_url, request_timeout_ms=3000) as service:
        patched.setattr(OnnxSession, "run", wait)
        for given, least_s, most_s in ((100, 0.1, 1.5), (60_000, 3, 6)):
            start = time.monotonic()
            assert ask(service, given).status_code == 503
            assert least_s <= time.monotonic() - start < most_s
        gate.set()
        wait_for(lambda: ask(service, 2000).status_code == 200)


@pytest.mark.parametrize("given", ["0", "-1", "1.5", "soon", ""])
def test_a_time_that_is_none_is_refused_by_name(service, given):
    response = ask(service, given)
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "X-Request-Timeout-Ms"


def test_who_has_left_is_not_computed_for(models, redis_url, gate):
    """Ten requests wait behind a slow one; eight of them leave."""
    patched, wait, gate = gate
    with serve(models_dir=models, redis_url=redis_url, request_timeout_ms=20_000, max_batch=100) as service:
        patched.setattr(OnnxSession, "run", wait)
        host, port = service.client.base_url.host, service.client.base_url.port
        body = b'{"user_id": "u1", "history": [{"item_id": "B1", "domain": "Books"}]}'
        head = b"POST /recommend HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        sockets = []
        for n in range(11):
            one = socket.create_connection((host, port))
            one.sendall(head % len(body) + body)
            sockets.append(one)
            if n == 0:
                wait_for(lambda: gate.batches == [1])
        time.sleep(0.2)  # all of them have arrived
        for one in sockets[1:9]:
            one.close()
        wait_for(lambda: service.metric("syncrec_abandoned_requests_total") == 8)
        gate.set()
        for one in (sockets[0], *sockets[9:]):
            assert one.recv(100).startswith(b"HTTP/1.1 200")
            one.close()
    assert gate.batches == [1, 2]


def test_server_timing_says_where_the_time_went(service, store):
    store("u1", [("Books", "B1")])
    for path, body in (("/recommend", {"user_id": "u1"}), ("/recommend/batch", {"requests": [{"user_id": "u1"}] * 3})):
        start = time.monotonic()
        response = service.client.post(path, json=body)
        took_ms = 1000 * (time.monotonic() - start)
        found = re.findall(r"(\w+);dur=([0-9.]+)", response.headers["server-timing"])
        assert [name for name, _ in found] == ["history", "queue", "inference", "rest"]
        assert all(float(value) > 0 for _, value in found)
        assert sum(float(value) for _, value in found) <= took_ms
