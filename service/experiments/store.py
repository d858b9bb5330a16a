"""Definitions in Redis, followed by every replica.

syncrec:experiments   hash   experiment's key -> definition as JSON; `:version` -> a number that rises with every change
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from service.errors import ChangeRefused, InvalidRequest, StoreUnavailable
from service.experiments.assignment import NOBODY, Assigner
from service.experiments.definition import (
    Experiment,
    as_json,
    changed,
    check,
    read_experiment,
    removable,
)
from service.failures import REDIS_FAILURES, short_reason
from service.scripts import Call, Client, Script

log = logging.getLogger(__name__)

KEY = "syncrec:experiments"
VERSION = ":version"  # no experiment's key begins so
ATTEMPTS = 20  # against others who change definitions at the same time


@dataclass(frozen=True)
class Experiments:
    """All definitions at one moment.

    version: of what is in Redis; empty before the first change.
    broken: key -> why its definition cannot be read; nobody is in those.
    """

    version: bytes
    by_key: Mapping[str, Experiment]
    broken: Mapping[str, str]
    assigner: Assigner


NONE = Experiments(b"", MappingProxyType({}), MappingProxyType({}), NOBODY)


class ExperimentStore:
    """Changes definitions and follows everybody's."""

    def __init__(self, redis: Client, clock: Callable[[], float] = time.time) -> None:
        # redis-py's types answer for every way to set a client up; ours gives bytes.
        self._redis: Any = redis
        self._clock = clock
        self._script = Script("service.experiments", "put.lua")
        self.current = NONE

    async def refresh(self) -> None:
        """Make `current` what is in Redis: one round trip if nothing changed.

        Raises:
            RedisError, OSError, TimeoutError: no answer; `current` stays.
        """
        version = await self._redis.hget(KEY, VERSION)
        if (version or b"") != self.current.version:
            self.current = await self._read()

    async def put(self, wanted: Experiment) -> Experiment:
        """Make an experiment as wanted, start, grow or stop it (`definition.changed`). This replica has it when this returns.

        Returns:
            The definition as it is now.

        Raises:
            InvalidRequest: it cannot be meant.
            ChangeRefused: not in its state, its layer is full, or others change definitions without pause.
            StoreUnavailable: Redis does not answer; asking again does no harm.
        """

        def after(experiments: Experiments) -> Experiment:
            known = experiments.by_key.get(wanted.key)
            made = changed(known, wanted, experiments.by_key.values(), self._clock())
            unread = experiments.broken.keys() - {wanted.key}
            if unread and made.segments != (() if known is None else known.segments) and made.state == "running":
                raise ChangeRefused(
                    f"the definition of '{min(unread)}' cannot be read, nor which users it has: remove it first"
                )
            return made

        made = await self._change(wanted.key, after)
        assert made is not None
        return made

    async def delete(self, key: str) -> bool:
        """Remove a definition; False if there is none.

        Raises:
            ChangeRefused: it is running.
            StoreUnavailable: Redis does not answer; asking again does no harm.
        """
        was_there = False

        def after(experiments: Experiments) -> None:
            nonlocal was_there
            was_there = key in experiments.by_key or key in experiments.broken
            if key in experiments.by_key:
                removable(experiments.by_key[key])

        await self._change(key, after)
        return was_there

    async def _change(self, key: str, after: Callable[[Experiments], Experiment | None]) -> Experiment | None:
        """Compare and set, until nobody else came between reading and writing."""
        try:
            for _ in range(ATTEMPTS):
                experiments = await self._read()
                made = after(experiments)
                if made == experiments.by_key.get(key) and key not in experiments.broken:
                    self.current = experiments
                    return made
                value = b"" if made is None else as_json(made)
                [answer] = await self._script.run(self._redis, [Call((KEY,), (experiments.version, key, value))])
                if isinstance(answer, Exception):
                    raise answer
                if answer:
                    self.current = await self._read()
                    return made
        except REDIS_FAILURES as error:
            raise StoreUnavailable(short_reason(error)) from None
        raise ChangeRefused("others change experiments at the same time; try again")

    async def _read(self) -> Experiments:
        """All, at one moment."""
        found: dict[bytes, bytes] = await self._redis.hgetall(KEY)
        version = found.pop(VERSION.encode(), b"")
        by_key: dict[str, Experiment] = {}
        broken: dict[str, str] = {}
        for field, value in found.items():
            key = field.decode(errors="replace")
            try:
                experiment = read_experiment(value)
                check(experiment)
            except InvalidRequest as error:
                broken[key] = str(error)
            else:
                by_key[key] = experiment
        if broken and broken != self.current.broken:
            log.error(
                "experiments whose definitions cannot be read: %s", "; ".join(f"{k}: {v}" for k, v in broken.items())
            )
        return Experiments(version, MappingProxyType(by_key), MappingProxyType(broken), Assigner(by_key, broken))
