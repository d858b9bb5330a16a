"""`syncrec serve` as a process: ready line, exit codes, one line for what cannot be served."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager

import httpx
import pytest
import redis

from tests.service.running import store_history, wait_for
from tests.service.small_bundle import make_bundle


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder, version="old", created=1)
    make_bundle(folder, version="new", created=2)
    return folder


def command(*arguments):
    return [sys.executable, "-m", "syncrec", "serve", *map(str, arguments)]


@pytest.fixture
def environment(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SYNCREC_")}
    return {**kept, "SYNCREC_DATA_DIR": str(tmp_path / "data")}


def refused(environment, *arguments):
    """Exit code and standard error of a service that does not start."""
    done = subprocess.run(command(*arguments), env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == ""
    return done.returncode, done.stderr


@contextmanager
def started(environment, *arguments):
    """A running service and its URL, from the line it prints when it is ready."""
    with subprocess.Popen(
        command(*arguments, "--port", "0"), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("serving "), process.stderr.read()
            yield process, next(word for word in line.split() if word.startswith("http://"))
        finally:
            process.kill()


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_the_newest_bundle_over_the_embedded_redis_and_ends_with_0(models, environment, workers):
    with started(environment, "--models", models, "--redis", "embedded", "--workers", workers) as (process, url):
        ready = httpx.get(f"{url}/readyz").json()
        assert ready["model_version"] == "new"
        assert ready["redis"] == "embedded"
        socket_path = f"{environment['SYNCREC_DATA_DIR']}/redis/embedded.sock"
        store_history(f"unix://{socket_path}", "u1", [("Books", "B1")])
        sources = [httpx.post(f"{url}/recommend", json={"user_id": "u1"}).json()["source"] for _ in range(6)]
        assert sources == ["model"] * 6
        # Whichever worker is scraped answers for all.
        counted = 'syncrec_recommendations_total{model_version="new",source="model"} 6.0'
        assert counted in httpx.get(f"{url}/metrics").text
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in error
    with pytest.raises(redis.ConnectionError), redis.Redis(unix_socket_path=socket_path) as client:
        client.ping()


def test_ctrl_c_ends_with_0_too(models, environment):
    with started(environment, "--models", models, "--redis", "embedded") as (process, _):
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in error


def test_requests_under_way_are_answered_after_sigterm(models, environment):
    """Half a request is sent, then SIGTERM, then the other half: it was accepted, so it is answered."""
    with started(environment, "--models", models, "--redis", "embedded") as (process, url):
        port = int(url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 16\r\n\r\n")
            wait_for(lambda: httpx.get(f"{url}/healthz").status_code == 200)
            process.send_signal(signal.SIGTERM)
            wait_for(lambda: not accepts(port))
            client.sendall(b'{"user_id": "u"}')
            assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        process.communicate(timeout=30)
    assert process.returncode == 0


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["ranker.onnx", "items.parquet"])
def test_a_bundle_with_a_flipped_bit_is_refused_in_one_line(models, environment, tmp_path, name):
    shutil.copytree(models / "new", tmp_path / "models" / "new")
    file = tmp_path / "models" / "new" / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    code, error = refused(environment, "--models", tmp_path / "models", "--redis", "embedded")
    assert code == 1
    assert error == f"syncrec serve: {file}: SHA-256 differs from manifest.json: the file was changed or damaged\n"


def test_a_bundle_that_answers_otherwise_than_at_export_is_refused_in_one_line(environment, tmp_path):
    make_bundle(tmp_path, warmup_shift=0.5)
    code, error = refused(environment, "--models", tmp_path, "--redis", "embedded")
    assert code == 1
    assert error.startswith("syncrec serve: ")
    assert "warmup.jsonl:1: the graph answers otherwise than at export" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_that_is_taken_is_one_line(models, environment, workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, error = refused(environment, "--models", models, "--port", port, "--workers", workers)
    assert code == 1
    assert error == (f"syncrec serve: port {port} of 127.0.0.1: Address already in use; name another with --port\n")


@pytest.mark.parametrize(
    ("setting", "arguments", "code", "line"),
    [
        ({"SYNCREC_PROVIDERS": "cuda"}, [], 1, "SYNCREC_PROVIDERS=cuda: CUDAExecutionProvider does not work here"),
        ({"SYNCREC_PROVIDERS": "gpu"}, [], 2, "SYNCREC_PROVIDERS: Input should be"),
        ({"SYNCREC_MAX_BATCH": "0"}, [], 2, "SYNCREC_MAX_BATCH: "),
        ({}, ["--models", "nowhere"], 1, "nowhere: no such models folder"),
        ({}, ["--redis", "http://x"], 2, "SYNCREC_REDIS_URL (--redis): "),
        ({}, ["--workers", "0"], 2, "--workers 0"),
        ({}, ["--host", "no.such.host.invalid"], 2, "--host no.such.host.invalid"),
        ({}, ["--port", "70000"], 2, "--port 70000"),
    ],
)
def test_what_cannot_be_served_is_one_line(models, environment, setting, arguments, code, line):
    given = ["--models", models, "--redis", "embedded", "--port", "0", *arguments]
    got, error = refused({**environment, **setting}, *given)
    assert (got, error.count("\n")) == (code, 1), error
    assert error.startswith(f"syncrec serve: {line}")


def test_two_services_on_one_data_folder_are_refused_in_one_line(models, environment):
    with started(environment, "--models", models, "--redis", "embedded") as (process, _):
        code, error = refused(environment, "--models", models, "--redis", "embedded", "--port", "0")
        assert code == 1
        assert f"in use by process {process.pid}" in error
        assert error.count("\n") == 1


def test_log_lines_are_json_with_the_id_of_the_request(models, environment):
    import json

    with started(environment, "--models", models, "--redis", "redis://127.0.0.1:1") as (process, url):
        httpx.post(f"{url}/recommend", json={"user_id": "u"}, headers={"x-request-id": "r-1"})
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    lines = [json.loads(line) for line in error.splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    assert [line["request_id"] for line in lines if line["logger"] == "service.recommend"] == ["r-1"]
