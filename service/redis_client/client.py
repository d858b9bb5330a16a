"""open_redis: a client of any form of Redis, with every time-out explicit.

Nothing is retried behind anybody's back: what a lost answer means is known only where the command was sent. A connection on which
something timed out or was cancelled is closed by redis-py and not used again. RESP2, so that there is no HELLO: a new connection
costs one round trip less.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from redis.asyncio import (
    BlockingConnectionPool,
    Connection,
    Redis,
    Sentinel,
    SentinelConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from service.redis_client.address import Address, parse_address
from service.redis_client.cluster import ClusterClient
from service.scripts import Client


class SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Connections to the master, wherever the sentinels say it is; whoever finds none free waits for one."""


@asynccontextmanager
async def open_redis(url: str, *, timeout_ms: float, connections: int) -> AsyncIterator[Client]:
    """A client of the Redis at `url`, which need not be there yet.

    Args:
        url: as `service.redis_client.address` says.
        timeout_ms: for a connection, for one to be free, and for every answer; each on its own.
        connections: at most, with a cluster to each node; who finds none free waits.

    Raises:
        WrongUse: `url` cannot be meant.
    """
    address = parse_address(url)
    options: dict[str, Any] = {
        **address.login,
        "socket_timeout": timeout_ms / 1000,
        "socket_connect_timeout": timeout_ms / 1000,
        "health_check_interval": 0,
        "protocol": 2,
    }
    async with AsyncExitStack() as stack:
        client: Client
        if address.form == "cluster":
            tls = {} if address.tls is None else {"ssl": True, **address.tls}
            client = ClusterClient(address.hosts, connections, timeout_ms / 1000, **options, **tls)
        else:
            options |= {"db": address.db, "retry": Retry(NoBackoff(), 0)}
            options |= {"max_connections": connections, "timeout": timeout_ms / 1000}
            if address.form == "sentinel":
                pool: BlockingConnectionPool = _sentinel_pool(address, stack, options)
            else:
                pool = BlockingConnectionPool(**options, **_place(address))
            stack.push_async_callback(pool.aclose)
            client = Redis(connection_pool=pool)
        stack.push_async_callback(client.aclose)
        yield client


def _place(address: Address) -> dict[str, Any]:
    if address.form == "unix":
        return {"connection_class": UnixDomainSocketConnection, "path": address.path}
    [(host, port)] = address.hosts
    if address.tls is None:
        return {"connection_class": Connection, "host": host, "port": port}
    return {"connection_class": SSLConnection, "host": host, "port": port, **address.tls}


def _sentinel_pool(address: Address, stack: AsyncExitStack, options: Mapping[str, Any]) -> SentinelPool:
    tls = {} if address.tls is None else {"ssl": True, **address.tls}
    shared = ("socket_timeout", "socket_connect_timeout", "health_check_interval", "protocol", "retry")
    sentinels = Sentinel(  # type: ignore[no-untyped-call]
        address.hosts, sentinel_kwargs={name: options[name] for name in shared} | {**address.sentinel_login, **tls}
    )
    for sentinel in sentinels.sentinels:
        stack.push_async_callback(sentinel.aclose)
    return SentinelPool(address.service, sentinels, **options, **tls)  # type: ignore[no-untyped-call]
