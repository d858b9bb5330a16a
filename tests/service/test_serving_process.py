"""`syncrec serve` as whole processes: what listens without keys, the admin port, and how it ends."""

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn

from service.access.keys import new_key, setting_entry
from syncrec.serve_drain import DrainingServer
from tests.service.running import wait_for

KEY = new_key()
READ_KEYS = setting_entry("web", "read", KEY)[1]
BODY = b'{"user_id": "u"}'
REQUEST = b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n" + BODY


@pytest.fixture
def environment(tmp_path, models):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNCREC_")}
    return {**kept, "SYNCREC_DATA_DIR": str(tmp_path / "data"), "SYNCREC_MODELS_DIR": str(models)}


@dataclass
class Serving:
    """A running service: its process, and its URLs from the line that it prints when it is ready."""

    process: subprocess.Popen
    urls: list[str]

    @property
    def port(self):
        return int(self.urls[0].rpartition(":")[2])

    def ended(self):
        """Exit code and standard error."""
        _, error = self.process.communicate(timeout=60)
        return self.process.returncode, error


@contextmanager
def serving(environment, *arguments, **settings):
    command = [sys.executable, "-m", "syncrec", "serve", "--port", "0", *map(str, arguments)]
    environment = {**environment, **{f"SYNCREC_{name.upper()}": str(value) for name, value in settings.items()}}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving "), process.stderr.read()
            yield Serving(process, [word.rstrip(",") for word in line.split() if word.startswith("http://")])
        finally:
            process.kill()


def refused(environment, *arguments, **settings):
    """Exit code and standard error of a service that does not start."""
    command = [sys.executable, "-m", "syncrec", "serve", "--port", "0", *map(str, arguments)]
    environment = {**environment, **{f"SYNCREC_{name.upper()}": str(value) for name, value in settings.items()}}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


def open_half(port):
    """A connection that has sent all of a request but its last byte."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(REQUEST[:-1])
    return client


# What listens


def test_without_keys_only_loopback_is_served(environment):
    code, error = refused(environment, "--host", "0.0.0.0")
    assert code == 2
    assert error.startswith("syncrec serve: without API keys only this machine may be served, not 0.0.0.0: ")
    assert all(cure in error for cure in ("syncrec api-key", "SYNCREC_API_KEYS", "SYNCREC_ALLOW_WITHOUT_KEYS=true"))


def test_without_keys_the_admin_port_is_on_loopback_too(environment):
    code, error = refused(environment, admin_host="0.0.0.0", admin_port=free_port())
    assert code == 2
    assert "not 0.0.0.0" in error


@pytest.mark.parametrize("settings", [{"api_keys": READ_KEYS}, {"allow_without_keys": "true"}])
def test_with_keys_or_when_allowed_any_address_is_served(environment, settings):
    with serving(environment, "--host", "0.0.0.0", **settings) as running:
        assert httpx.get(f"http://127.0.0.1:{running.port}/healthz").status_code == 200
        running.process.send_signal(signal.SIGINT)
        code, error = running.ended()
    assert code == 0
    warned = [line["message"] for line in map(json.loads, error.splitlines()) if line["level"] == "warning"]
    assert ["no API key is configured" in message for message in warned] == ([] if "api_keys" in settings else [True])


def test_a_pasted_key_is_refused_in_one_line_that_does_not_repeat_it(environment):
    code, error = refused(environment, api_keys=KEY)
    assert code == 2
    assert error.startswith("syncrec serve: SYNCREC_API_KEYS: entry 1 ")
    assert KEY not in error


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_admin_port_is_served_beside_the_public_one(environment, workers):
    port = free_port()
    with serving(environment, "--workers", workers, admin_port=port) as running:
        assert running.urls[1] == f"http://127.0.0.1:{port}"
        for url in running.urls[:2]:
            assert httpx.get(f"{url}/healthz").status_code == 200
        running.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not accepts(port))
        assert running.ended()[0] == 0


def test_an_admin_port_that_is_taken_is_named_by_its_setting(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, error = refused(environment, admin_port=port)
    assert code == 1
    assert f"port {port} of 127.0.0.1: " in error
    assert "SYNCREC_ADMIN_PORT" in error


# How it ends


@dataclass
class Load:
    """Clients that keep their connections, until they are told to close them or nobody listens any more."""

    port: int
    pause_s: float = 0  # of each client between two requests, at most
    answered: int = 0
    told_to_close: int = 0
    broken: list[str] = field(default_factory=list)

    async def client(self):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:  # not accepted: nothing was sent
                return
            try:
                while await self._asked(reader, writer):  # noqa: ASYNC110 (a pause, not a poll)
                    await asyncio.sleep(random.uniform(0, self.pause_s))
            except (OSError, EOFError) as error:
                self.broken.append(repr(error))
            finally:
                writer.close()

    async def _asked(self, reader, writer):
        """One request; whether the connection may be used for another."""
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        if head.startswith(b"http/1.1 200 "):
            self.answered += 1
        else:
            self.broken.append(head.decode())
        closes = b"\r\nconnection: close\r\n" in head
        self.told_to_close += closes
        return not closes


async def under_load(running, end):
    """Load, in the middle of which `end` is called; returns when nobody listens any more."""
    load = Load(running.port, pause_s=0.05)
    clients = [asyncio.create_task(load.client()) for _ in range(32)]
    while load.answered < 500:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    end()
    await asyncio.wait_for(asyncio.gather(*clients), 60)
    return load


@pytest.mark.parametrize(
    ("workers", "send"),
    [(1, os.kill), (2, os.kill), (2, os.killpg)],  # systemd signals every process, and the supervisor does so once more
    ids=["alone", "two workers", "two workers, each of which gets the signal"],
)
def test_under_load_sigterm_breaks_no_request(environment, workers, send):
    patient = {"redis_timeout_ms": 10_000, "request_timeout_ms": 30_000}  # this is not about a slow machine
    with serving(environment, "--workers", workers, **patient) as running:
        load = asyncio.run(under_load(running, lambda: send(running.process.pid, signal.SIGTERM)))
        code, error = running.ended()
    assert load.broken == []
    assert load.told_to_close >= 32
    assert code == 0
    assert all(json.loads(line)["level"] == "info" for line in error.splitlines()), error


@pytest.mark.parametrize("workers", [1, 2])
def test_after_sigterm_it_is_not_ready_but_answers_until_the_notice_is_over(environment, workers):
    with serving(environment, "--workers", workers, drain_notice_ms=60_000) as running:
        running.process.send_signal(signal.SIGTERM)
        with httpx.Client(base_url=running.urls[0]) as client:
            wait_for(lambda: client.get("/readyz").status_code == 503)
            ready = httpx.get(f"{running.urls[0]}/readyz")
            assert (ready.status_code, ready.json()["status"]) == (503, "draining")
            answer = client.post("/recommend", json={"user_id": "u"})
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
        assert running.process.poll() is None


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_goes_without_the_notice(environment, workers):
    with serving(environment, "--workers", workers, drain_notice_ms=600_000) as running:
        running.process.send_signal(signal.SIGINT)
        code, _ = running.ended()
    assert code == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_ends_it_at_once(environment, workers):
    started = serving(environment, "--workers", workers, drain_timeout_ms=600_000)
    with started as running, open_half(running.port) as client:
        running.process.send_signal(signal.SIGINT)
        wait_for(lambda: not accepts(running.port))
        running.process.send_signal(signal.SIGTERM)
        code, error = running.ended()
        assert received(client) == b""
    if workers == 1:
        assert code == -signal.SIGTERM
    else:
        assert code == 1
        assert error.splitlines()[-1].startswith("syncrec serve: ended by a second signal")


def test_what_is_not_answered_within_the_deadline_is_cut_off_and_logged(environment):
    with serving(environment, drain_timeout_ms=200) as running, open_half(running.port) as client:
        running.process.send_signal(signal.SIGINT)
        code, error = running.ended()
        assert not received(client).startswith(b"HTTP/1.1 200")
    assert code == 0
    assert "timeout graceful shutdown exceeded" in error


def received(client):
    """What comes until the other side ends the connection, in whichever way."""
    content = b""
    try:
        while more := client.recv(65536):
            content += more
    except ConnectionResetError:
        pass
    return content


def test_who_has_connected_but_not_asked_yet_is_heard(environment):
    with serving(environment) as running:
        with socket.create_connection(("127.0.0.1", running.port), timeout=30) as client:
            running.process.send_signal(signal.SIGINT)
            wait_for(lambda: not accepts(running.port))
            client.sendall(REQUEST)
            assert received(client).startswith(b"HTTP/1.1 200 ")
        assert running.ended()[0] == 0


async def test_who_waits_in_the_queue_of_the_listener_when_it_is_closed_is_served():
    class App:
        draining = False

        async def __call__(self, scope, receive, send):
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await send({"type": "http.response.body", "body": b"ok"})

    app = App()
    config = uvicorn.Config(app, lifespan="off", http="httptools", log_config=None, proxy_headers=False)
    config.load()
    server = DrainingServer(config, notice_s=0)
    server.lifespan = config.lifespan_class(config)
    listener = socket.create_server(("127.0.0.1", 0))
    await server.startup([listener])
    with ExitStack() as stack:
        clients = []
        for _ in range(5):  # no await: the event loop has no chance to take them in
            clients.append(stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10)))
            clients[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        await server.shutdown([listener])
        assert [received(client)[-2:] for client in clients] == [b"ok"] * 5
    assert app.draining


def children(pid):
    """Processes that run `spawn_main` of multiprocessing, the workers."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", ["killed", "SIGHUP"])
def test_a_worker_that_takes_the_place_of_another_ends_as_well(environment, how):
    with serving(environment, "--workers", 2) as running:
        before = children(running.process.pid)
        assert len(before) == 2
        if how == "killed":
            os.kill(min(before), signal.SIGKILL)
        else:
            running.process.send_signal(signal.SIGHUP)
        wait_for(lambda: len(now := children(running.process.pid)) == 2 and now - before, timeout_s=60)
        wait_for(lambda: httpx.get(f"{running.urls[0]}/readyz").status_code == 200)
        running.process.send_signal(signal.SIGTERM)
        assert running.ended()[0] == 0
