"""Fixtures of the client's tests: a fake service and clients of it."""

import threading
import time
from dataclasses import dataclass

import pytest
import uvicorn

from tests.client.fake import Fake


@dataclass
class FakeService:
    """The fake, and where it listens."""

    fake: Fake
    url: str


class _Listening:
    """One server for the whole session; each test puts its own application in."""

    app = None
    url = ""

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def listening():
    """The server. It starts without the real service, which a user of the client has not installed."""
    app = _Listening()
    config = uvicorn.Config(app, port=0, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    app.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield app
    server.should_exit = True
    thread.join()


@pytest.fixture
def fake(listening):
    """A fake service that runs and has been asked nothing yet."""
    listening.app = Fake()
    return FakeService(listening.app, listening.url)
