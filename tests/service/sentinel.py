"""A real master with its replica, watched by three sentinels."""

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.service.running import wait_for
from tests.service.servers import VALKEY, Server, with_parameters

NAME = "histories"


@dataclass(frozen=True)
class Watched:
    """What runs."""

    master: Server
    replica: Server
    sentinels: list[Server]

    @property
    def url(self):
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return with_parameters(f"redis+sentinel://{hosts}/{NAME}", self.master.certificates)

    def replicate(self):
        """Wait until the replica has what the master has."""
        with self.master.client() as client:
            wait_for(lambda: client.wait(1, 1000) == 1)


@contextmanager
def redis_sentinel(binary=VALKEY, certificates=None, announce=lambda port: port):
    """announce: the port at which the sentinels send clients to the first master, by its own."""
    with ExitStack() as stack:
        servers = [Server(binary, certificates) for _ in range(5)]
        for server in servers:
            stack.callback(server.kill)
        master, replica, *sentinels = servers

        def folder():
            return stack.enter_context(tempfile.TemporaryDirectory(prefix="sentinel-"))

        master.start(folder())
        replica.start(folder(), replicaof=f"127.0.0.1 {master.port}")
        for sentinel in sentinels:
            monitored = (
                f"sentinel monitor {NAME} 127.0.0.1 {announce(master.port)} 2",
                f"sentinel down-after-milliseconds {NAME} 500",
                f"sentinel failover-timeout {NAME} 3000",
            )
            sentinel.start(folder(), monitored, is_sentinel=True)
        for sentinel in sentinels:
            wait_for(lambda sentinel=sentinel: _knows_all(sentinel), timeout_s=60)
        yield Watched(master, replica, sentinels)


def _knows_all(sentinel):
    with sentinel.client() as client:
        state = client.sentinel_master(NAME)
    return (state["num-other-sentinels"], state["num-slaves"]) == (2, 1)
