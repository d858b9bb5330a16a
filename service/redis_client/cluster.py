"""ClusterClient: redis-py's cluster client, made for reads that cannot wait and for clusters in which something is broken.

redis-py's own way with pipelines fails all commands when one node is away, learns of a promoted replica only by retrying, sends
ASKING on another connection of its pool than the command it is for, and does not wait for a free connection. Here every command
goes the same way: to the node of its key, in one round trip per node; redirections are followed; a failure is the answer of the
commands that it concerns, at once; and then, in the background, the cluster is asked who owns what.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode, ClusterPipeline, PipelineCommand
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,  # noqa: A004 (redis-py's is no OSError)
    MovedError,
    RedisClusterException,
    RedisError,
    TimeoutError,  # noqa: A004
    TryAgainError,
)

log = logging.getLogger(__name__)

REDIRECTIONS = 5  # of one command; a slot moves once, and its key may be asked for while it does
TRY_AGAIN_S = 0.02  # while the keys of one command are on two nodes
PAUSE_S = 0.2  # between two questions about the topology, and between two attempts at a node that is silent
PLACE_OF_KEY = {
    "EVAL": 3,
    "EVALSHA": 3,
    "XREADGROUP": -2,
}  # of one stream; of all other commands it is the first argument
NODE_IS_OUT = (ConnectionError, TimeoutError, ClusterDownError)


class ClusterClient(RedisCluster):
    """A client for commands with a key, whose keys are all of one hash tag; and PING."""

    def __init__(self, hosts: Sequence[tuple[str, int]], connections: int, timeout_s: float, **options: Any) -> None:
        """Args: some nodes; connections to each node; seconds to wait for a free one; options of redis-py."""
        super().__init__(
            startup_nodes=[ClusterNode(host, port) for host, port in hosts],
            # Room for those that are being closed, and for questions about the topology.
            max_connections=2 * connections + 4,
            # Slots without an owner concern their keys, not the others.
            require_full_coverage=False,
            # Every so many redirections it would close all connections, also those that are waiting for answers.
            reinitialize_steps=0,
            retry=Retry(NoBackoff(), 0),
            **options,
        )
        self._hosts, self._timeout_s = hosts, timeout_s
        self._free = asyncio.Semaphore(connections)
        self._starting = asyncio.Lock()
        self._asking_around: asyncio.Task[None] | None = None
        self._silent: dict[str, float] = {}  # nodes that let somebody wait in vain, and until when nobody else does

    async def initialize(self, *_: Any, **__: Any) -> "ClusterClient":
        """Ask who owns what, the first time.

        Raises:
            ConnectionError: nobody answers.
        """
        async with self._starting:
            if self._initialize:
                try:
                    await self.nodes_manager.initialize()
                except RedisClusterException as error:
                    # It is no RedisError, and nobody would take it for what it is.
                    await self.nodes_manager.aclose("startup_nodes")
                    raise ConnectionError(str(error)) from error
                self._initialize = False
        return self

    async def aclose(self) -> None:
        """Close all connections."""
        if self._asking_around is not None:
            self._asking_around.cancel()
            await asyncio.gather(self._asking_around, return_exceptions=True)
        await super().aclose()

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> "Pipeline":  # noqa: ARG002 (redis-py's)
        """Commands of any keys, in one round trip per node."""
        return Pipeline(self, transaction)  # type: ignore[abstract]  # redis-py forgets to set it

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """One command."""
        if args[0] == "PING":
            return await self._ping()
        pipeline = self.pipeline()
        pipeline.execute_command(*args, **kwargs)
        [answer] = await pipeline.execute()
        return answer

    async def delete(self, *names: Any) -> int:
        """Delete keys of one hash tag, all at once."""
        return int(await self.execute_command("DEL", *names))

    async def exists(self, *names: Any) -> int:
        """How many of these keys, of one hash tag, there are."""
        return int(await self.execute_command("EXISTS", *names))

    async def get_each(self, keys: Sequence[str]) -> list[Any]:
        """The value of each key, or why it cannot be had: one node's failure is not the others'."""
        pipeline = self.pipeline()
        for key in keys:
            pipeline.get(key)
        return await pipeline.execute(raise_on_error=False)

    async def run(self, commands: Sequence[PipelineCommand]) -> None:
        """Give every command its result: the answer, or the error."""
        async with self._turn():
            if self._initialize:
                await self.initialize()
            for _ in range(1 + REDIRECTIONS):
                await self._send(commands)
                commands = [command for command in commands if isinstance(command.result, AskError | TryAgainError)]
                if not commands:
                    return
                if any(isinstance(command.result, TryAgainError) for command in commands):
                    await asyncio.sleep(TRY_AGAIN_S)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with asyncio.timeout(self._timeout_s):
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    async def _send(self, commands: Sequence[PipelineCommand]) -> None:
        """Send each to its node, or where its last result says."""
        of_node: dict[ClusterNode, list[PipelineCommand]] = {}
        for command in commands:
            redirection, command.result = command.result, None
            if isinstance(redirection, MovedError):
                await self.nodes_manager.move_slot(redirection)
            try:
                if isinstance(redirection, AskError) and not isinstance(redirection, MovedError):
                    to_node = of_node.setdefault(self._node_at(redirection.host, redirection.port), [])
                    # It holds for the next command of its connection only.
                    to_node.append(PipelineCommand(0, "ASKING"))
                else:
                    to_node = of_node.setdefault(self._owner(command), [])
            except RedisClusterException as error:
                command.result = ConnectionError(str(error))
                self._ask_around()
            else:
                to_node.append(command)
        await asyncio.gather(*(self._send_to(node, of_one) for node, of_one in of_node.items()))

    async def _send_to(self, node: ClusterNode, commands: list[PipelineCommand]) -> None:
        clock = asyncio.get_running_loop().time
        if node.name in self._silent:
            if clock() < self._silent[node.name]:
                # Whoever waits for it holds up the commands to other nodes that came with its own.
                for command in commands:
                    command.result = ConnectionError("the node did not answer a moment ago")
                self._ask_around(node.name)
                return
            # One tries again; the others do not wait meanwhile.
            self._silent[node.name] = clock() + self._timeout_s + PAUSE_S
        try:
            await node.execute_pipeline(commands)
        except (RedisError, OSError) as error:
            for command in commands:
                command.result = error
        if any(isinstance(command.result, TimeoutError) for command in commands):
            self._silent[node.name] = clock() + PAUSE_S
        else:
            self._silent.pop(node.name, None)
        if any(isinstance(command.result, NODE_IS_OUT) for command in commands):
            self._ask_around(node.name)

    def _owner(self, command: PipelineCommand) -> ClusterNode:
        key = command.args[PLACE_OF_KEY.get(command.args[0], 1)]
        return self.nodes_manager.get_node_from_slot(self.keyslot(key))

    def _node_at(self, host: str, port: int) -> ClusterNode:
        """A node that may be new: it owns nothing before its first slot has moved to it whole."""
        node = self.nodes_manager.get_node(host, port)
        if node is None:
            node = ClusterNode(host, port, "primary", **self.connection_kwargs)
            self.nodes_manager.set_nodes(self.nodes_manager.nodes_cache, {node.name: node})
        return node

    def _ask_around(self, failed: str | None = None) -> None:
        if self._asking_around is None or self._asking_around.done():
            self._asking_around = asyncio.get_running_loop().create_task(self._learn_owners(failed))

    async def _learn_owners(self, failed: str | None) -> None:
        try:
            await self.nodes_manager.initialize(last_failed_node_name=failed)
        except (RedisClusterException, RedisError, OSError):
            # All are away. When they are back they may have other addresses, under the names that we were given.
            given = (ClusterNode(host, port, **self.connection_kwargs) for host, port in self._hosts)
            self.nodes_manager.set_nodes(self.nodes_manager.startup_nodes, {node.name: node for node in given})
            log.warning("no node of the Redis cluster answers")
        await asyncio.sleep(PAUSE_S)

    async def _ping(self) -> bool:
        """True as soon as one primary answers: as long as one does, it is worth asking."""
        if self._initialize:
            await self.initialize()
        pings = [asyncio.ensure_future(node.execute_command("PING")) for node in self.get_primaries()]
        failure: Exception = ConnectionError("the cluster has no primary")
        try:
            for ping in asyncio.as_completed(pings):
                try:
                    return bool(await ping)
                except (RedisError, OSError) as error:
                    failure = error
        finally:
            for ping in pings:
                ping.cancel()
            await asyncio.gather(*pings, return_exceptions=True)
        self._ask_around()
        raise failure


class Pipeline(ClusterPipeline):
    """Collects commands for `ClusterClient.run`."""

    def __init__(self, client: ClusterClient, transaction: Any = None) -> None:
        super().__init__(client, transaction)
        self._client = client
        self._commands: list[PipelineCommand] = []

    def execute_command(self, *args: Any, **kwargs: Any) -> "Pipeline":
        """Add a command."""
        self._commands.append(PipelineCommand(len(self._commands), *args, **kwargs))
        return self

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:  # noqa: ARG002
        """Send all and begin anew.

        Returns:
            The answer of each command, or its error unless those are raised.

        Raises:
            RedisError: the first error.
        """
        commands, self._commands = self._commands, []
        if commands:
            await self._client.run(commands)
        results = [command.result for command in commands]
        if raise_on_error:
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results
