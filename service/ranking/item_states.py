"""Items as an operator sets them: off sale, or in other categories than the bundle says. In Redis, followed by all replicas.

syncrec:item-states:{items}    hash         item -> ItemState as JSON; only items that are not as the bundle has them
syncrec:item-changes:{items}   sorted set   item, by the number of its last change, for readers to follow
syncrec:item-version:{items}   string       number of the last change of all
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.ranking.catalog import NO_ITEMS, Catalog
from service.scripts import Call, Client, Script

STATES, CHANGES, VERSION = (f"syncrec:item-{kind}:{{items}}" for kind in ("states", "changes", "version"))
PAGE = 1000

Item = tuple[str, str]  # domain, item id


class ItemState(msgspec.Struct, frozen=True, omit_defaults=True):
    """categories: in place of the bundle's; None leaves those."""

    available: bool = True
    categories: tuple[str, ...] | None = None


AS_IN_BUNDLE = ItemState()


@dataclass(frozen=True)
class ItemStates:
    """All states at one moment. version: rises with every change; 0 before the first."""

    version: int
    by_item: Mapping[Item, ItemState]

    def of(self, domain: str, item_id: str) -> ItemState:
        """The state of an item, in a catalogue or not."""
        return self.by_item.get((domain, item_id), AS_IN_BUNDLE)


class ItemStateStore:
    """Writes states and follows everybody's. Its methods raise RedisError, OSError or TimeoutError without an answer."""

    def __init__(self, redis: Client) -> None:
        # redis-py's types answer for every way to set a client up; ours gives bytes.
        self._redis: Any = redis
        self._script = Script("service.ranking", "put_item.lua")
        self._start: bytes | None = None
        self.current = ItemStates(0, MappingProxyType({}))

    async def put(self, domain: str, item_id: str, state: ItemState) -> int:
        """Set one item's state.

        Returns:
            The version that has it.
        """
        value = b"" if state == AS_IN_BUNDLE else msgspec.json.encode(state)
        [answer] = await self._script.run(
            self._redis, [Call((STATES, CHANGES, VERSION), (msgspec.json.encode((domain, item_id)), value))]
        )
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    async def refresh(self) -> None:
        """Make `current` what is in Redis: one round trip if nothing changed."""
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.hmget(VERSION, "start", "number")
        pipeline.zrangebyscore(CHANGES, f"({self.current.version}", "+inf")
        (start, number), changed = await pipeline.execute()
        by_item = dict(self.current.by_item)
        if start != self._start:  # the first time, or Redis lost its data
            by_item, changed = {}, await self._redis.zrange(CHANGES, 0, -1)
        elif not changed:
            return
        for first in range(0, len(changed), PAGE):
            page = changed[first : first + PAGE]
            for item, value in zip(page, await self._redis.hmget(STATES, page), strict=True):
                key = msgspec.json.decode(item, type=Item)
                by_item.pop(key, None)
                if value is not None:
                    by_item[key] = msgspec.json.decode(value, type=ItemState)
        self._start = start
        self.current = ItemStates(int(number or 0), MappingProxyType(by_item))


@dataclass(frozen=True)
class CatalogStates:
    """The states of one catalogue's items.

    unavailable: item indices, rising.
    unavailable_elsewhere: per domain, ids of items that the catalogue does not have.
    has_categories: whether any item has categories here.
    """

    version: int
    unavailable: NDArray[np.int32]
    unavailable_elsewhere: Mapping[str, Sequence[str]]
    has_categories: bool
    _moved: NDArray[np.int32]  # whose categories are set
    _by_category: Mapping[str, NDArray[np.int32]]  # of those

    def in_categories(self, of_bundle: NDArray[np.int32], categories: Sequence[str]) -> NDArray[np.int32]:
        """Indices of the items of any of these categories, rising.

        Args:
            of_bundle: those that the bundle has in them (`Catalog.in_categories`).
            categories: their names.
        """
        moved_in = [self._by_category.get(name, NO_ITEMS) for name in categories]
        return np.unique(np.concatenate([of_bundle[~np.isin(of_bundle, self._moved)], *moved_in]))


def states_in(states: ItemStates, catalog: Catalog) -> CatalogStates:
    """What the states say of the items of a catalogue's domains."""
    known: dict[int, ItemState] = {}
    elsewhere: dict[str, list[str]] = {}
    for (domain, item_id), state in states.by_item.items():
        if domain not in catalog.domain_number:
            continue
        if index := catalog.item_index(domain, item_id):
            known[index] = state
        elif not state.available:
            elsewhere.setdefault(domain, []).append(item_id)
    by_category: dict[str, list[int]] = {}
    for index, state in known.items():
        for name in state.categories or ():
            by_category.setdefault(name, []).append(index)
    return CatalogStates(
        version=states.version,
        unavailable=_rising(index for index, state in known.items() if not state.available),
        unavailable_elsewhere=elsewhere,
        has_categories=bool(by_category),
        _moved=_rising(index for index, state in known.items() if state.categories is not None),
        _by_category={name: _rising(indices) for name, indices in by_category.items()},
    )


def _rising(indices: Iterable[int]) -> NDArray[np.int32]:
    return np.array(sorted(indices), dtype=np.int32)
