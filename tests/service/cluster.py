"""A real Redis Cluster of three nodes on free ports; a fourth one is a replica of the first, or has nothing yet."""

import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.service.running import wait_for
from tests.service.servers import VALKEY, Server, with_parameters

SLOTS = 16_384
NODES = 3


@dataclass(frozen=True)
class Cluster:
    """servers: the three primaries, then the fourth."""

    servers: list[Server]

    @property
    def ports(self):
        return [server.port for server in self.servers]

    @property
    def url(self):
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports[:2])
        return with_parameters(f"redis+cluster://{hosts}", self.servers[0].certificates)

    def owner(self, key):
        """The primary that has the key's slot."""
        return self.servers[self.slot(key) * NODES // SLOTS]

    def slot(self, key):
        return self.servers[-1].ask("CLUSTER", "KEYSLOT", key)

    def ask_all(self, *command):
        return [server.ask(*command) for server in self.servers[:NODES]]


@contextmanager
def redis_cluster(binary=VALKEY, certificates=None, fourth=None, announce=lambda port: port):
    """Args: fourth: "replica", "empty" or None. announce: the port at which clients are sent to a node, by its own."""
    with ExitStack() as stack:
        servers = []
        for _ in range(NODES + (fourth is not None)):
            server = Server(binary, certificates)
            stack.callback(server.kill)
            announced = {
                "cluster-announce-tls-port" if certificates else "cluster-announce-port": announce(server.port)
            }
            server.start(
                stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-")),
                cluster_enabled="yes",
                cluster_node_timeout=1000,
                cluster_require_full_coverage="no",
                **announced,
                **({"tls-cluster": "yes"} if certificates else {}),
            )
            servers.append(server)
        for number, server in enumerate(servers[:NODES]):
            server.ask("CLUSTER", "ADDSLOTSRANGE", number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1)
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in servers[1:]:
            servers[0].ask("CLUSTER", "MEET", "127.0.0.1", announce(server.port), server.port + 10_000)
        for server in servers:
            wait_for(lambda server=server: _is_whole(server, len(servers)), timeout_s=60)
        if fourth == "replica":
            servers[NODES].ask("CLUSTER", "REPLICATE", servers[0].ask("CLUSTER", "MYID").decode())
            wait_for(lambda: servers[NODES].ask("INFO", "replication").get("master_link_status") == "up", timeout_s=60)
        yield Cluster(servers)


def _is_whole(server, nodes):
    info = server.ask("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and f"cluster_known_nodes:{nodes}\r".encode() in info
