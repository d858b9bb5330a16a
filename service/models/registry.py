"""Which model is active, said once in Redis for all replicas.

    syncrec:active-model   hash   version, previous (what was active before), number (of activations)

Nothing there: nobody has served yet; whoever starts first makes the newest of its folder active.
"""

from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.failures import short_reason
from service.scripts import Call, Client, Script

KEY = "syncrec:active-model"


@dataclass(frozen=True)
class Active:
    """The record. previous: empty before the first activation. number: rises with every one."""

    version: str
    previous: str
    number: int


class Registry:
    """Reads and changes the record."""

    def __init__(self, redis: Client) -> None:
        # redis-py's types answer for every way to set a client up; ours gives bytes.
        self._redis: Any = redis
        self._activate = Script("service.models", "activate.lua")
        self._roll_back = Script("service.models", "roll_back.lua")

    async def read(self) -> Active | None:
        """The record, None where nothing was activated.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        try:
            version, previous, number = await self._redis.hmget(KEY, "version", "previous", "number")
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(short_reason(error)) from None
        return None if version is None else Active(version.decode(), (previous or b"").decode(), int(number or 0))

    async def begin(self, version: str) -> None:
        """Make a version the active one if none is: the first replica's newest is everybody's, until somebody activates another.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        try:
            await self._redis.hsetnx(KEY, "version", version)
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(short_reason(error)) from None

    async def activate(self, version: str, served: str) -> None:
        """Make a version the active one.

        Args:
            version: the version.
            served: what was served before, should nothing have been activated yet.
        Raises:
            StoreUnavailable: Redis does not answer; asking again does no harm.
        """
        await self._run(self._activate, version, served)

    async def roll_back(self, leave: str, come_back: str) -> bool:
        """Make the previous version the active one again; False if the record has changed meanwhile.

        Raises:
            StoreUnavailable: Redis does not answer; whether it was done is unknown.
        """
        return bool(await self._run(self._roll_back, leave, come_back))

    async def _run(self, script: Script, *versions: str) -> Any:
        try:
            [answer] = await script.run(self._redis, [Call((KEY,), versions)])
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(short_reason(error)) from None
        if isinstance(answer, Exception):
            raise StoreUnavailable(short_reason(answer))
        return answer
