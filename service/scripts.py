"""Lua scripts that run inside Redis, where nothing else runs meanwhile: how several keys change together or not at all."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoScriptError

Argument = bytes | str | int
Client = Redis | RedisCluster


@dataclass(frozen=True)
class Call:
    """One run of a script. keys: all of one hash tag, so that they live together in a cluster."""

    keys: Sequence[str]
    arguments: Sequence[Argument]


class Script:
    """A script, sent by its hash, and in full only to a server that does not know it (yet, or after a restart)."""

    def __init__(self, package: str, name: str) -> None:
        self._text = files(package).joinpath(name).read_text()
        self._sha = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Client, calls: Sequence[Call]) -> list[Any]:
        """Run it once for every call, all in one round trip.

        Returns:
            The answer of each call, or what Redis raised for it.

        Raises:
            RedisError: no answer at all; whether the calls ran is unknown then.
        """
        answers = await self._send(redis, "EVALSHA", self._sha, calls)
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if unknown:
            again = await self._send(redis, "EVAL", self._text, [calls[place] for place in unknown])
            for place, answer in zip(unknown, again, strict=True):
                answers[place] = answer
        return answers

    @staticmethod
    async def _send(redis: Client, command: str, script: str, calls: Sequence[Call]) -> list[Any]:
        pipeline = redis.pipeline(transaction=False)
        for call in calls:
            pipeline.execute_command(command, script, len(call.keys), *call.keys, *call.arguments)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers
