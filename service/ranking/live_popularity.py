"""LivePopularity: counts accepted events, shares them with all replicas through Redis, and shows them to every model.

One task in the background calls `refresh`: an event is in every replica's view after at most two of its rounds. When Redis
is away, the last view stays, and what was counted here is sent when Redis is back.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from formats.bundle import Bundle, recent_column
from service.ranking.catalog import Catalog
from service.ranking.popularity_store import CHANGE_SIZE, Change, Loaded, PopularityStore
from service.ranking.popularity_view import PopularityView, Viewer
from service.ranking.seed import DAY_S, Seed, seeds_of
from service.scripts import Client

MAX_PENDING = 100_000  # items and days; only a Redis that takes histories but no counts lets so many gather


@dataclass
class _Model:
    viewer: Viewer
    view: PopularityView


class LivePopularity:
    """The popularity of one process. Counting and showing never wait."""

    def __init__(self, redis: Client, half_life_days: float, clock: Callable[[], float] = time.time) -> None:
        """Args: the store; the half-life of the ranked lists; seconds since 1970."""
        self._store, self._clock = PopularityStore(redis), clock
        self._half_lives = [half_life_days]
        self._models: dict[str, _Model] = {}
        self._seeds: dict[str, Seed] = {}  # of every domain
        self._loaded: dict[str, Loaded] = {}
        self._day = 0
        self._is_stale = False  # whether the counts are newer than the views
        self._refreshing = asyncio.Lock()
        # A name of this process alone, so that Redis knows which of its changes it has counted.
        self._writer = uuid.uuid4().hex
        self._number = 0
        self._pending: Counter[tuple[str, str, int]] = Counter()  # domain, item id, day
        self._sending: dict[str, tuple[int, Change]] = {}

    async def follow(self, bundle: Bundle, catalog: Catalog) -> None:
        """Show the counts to this model too; until the next refresh, those of its bundle."""
        seeds = await asyncio.to_thread(seeds_of, bundle)
        wanted = bundle.manifest.recent_half_lives_days
        # Not while a refresh is under way: it must find the counts of all half-lives, or of none.
        async with self._refreshing:
            if fresh := [days for days in wanted if days not in self._half_lives]:
                self._half_lives += fresh
                self._loaded.clear()
            self._models[catalog.model_version] = await asyncio.to_thread(self._first_view, bundle, catalog, seeds)
            self._seeds.update(seeds)
            self._is_stale = True

    def unfollow(self, model_version: str) -> None:
        """This model is not served any more."""
        self._models.pop(model_version, None)

    def view(self, model_version: str) -> PopularityView:
        """The newest view of a model that is followed."""
        return self._models[model_version].view

    def count(self, domain: str, item_id: str, timestamp: float) -> None:
        """One accepted interaction or click; it counts for its own UTC day. timestamp: seconds since 1970."""
        if len(self._pending) < MAX_PENDING:
            self._pending[domain, item_id, int(timestamp // DAY_S)] += 1

    async def refresh(self) -> None:
        """Send what was counted here, add what others counted, and renew the views.

        Raises:
            RedisError, OSError, TimeoutError: Redis does not answer; nothing is lost, call again.
        """
        async with self._refreshing:
            await self.send()
            await self._follow_changes()
            if self._is_stale:
                counts = {domain: loaded.counts for domain, loaded in self._loaded.items()}
                for model in list(self._models.values()):
                    # Sorting a large catalogue takes longer than a request may wait.
                    model.view = await asyncio.to_thread(model.viewer.view, counts)
                self._is_stale = False

    async def send(self) -> None:
        """Send what was counted here; a change whose answer was lost is sent again and counted once.

        Raises:
            RedisError, OSError, TimeoutError: as `refresh`.
        """
        while self._sending or self._pending:
            self._fill()
            counted = await self._store.count(self._writer, self._sending, self._today())
            for domain in counted:
                del self._sending[domain]
            if not counted:
                return

    def _fill(self) -> None:
        """Move pending events to those under way, of domains that have nothing under way."""
        free: dict[str, Change] = {}
        for domain, item_id, day in list(self._pending):
            change = free.setdefault(domain, [])
            if domain not in self._sending and len(change) < CHANGE_SIZE:
                change.append((item_id, day, self._pending.pop((domain, item_id, day))))
        for domain, change in free.items():
            if change:
                self._number += 1
                self._sending[domain] = (self._number, change)

    def _first_view(self, bundle: Bundle, catalog: Catalog, seeds: Mapping[str, Seed]) -> _Model:
        half_lives_days, mixture = bundle.manifest.recent_half_lives_days, bundle.manifest.mixture or {}
        names = [recent_column(days) for days in half_lives_days]
        weights = {domain: [given.get(name, 0.0) for name in names] for domain, given in mixture.items()}
        rows = [self._half_lives.index(days) for days in half_lives_days]
        viewer = Viewer(catalog, rows, ranked_row=0, weights=weights)
        today = self._today()
        return _Model(
            viewer, viewer.view({name: one.counts_on(today, self._half_lives) for name, one in seeds.items()})
        )

    async def _follow_changes(self) -> None:
        today = self._today()
        for domain, seed in list(self._seeds.items()):
            loaded = self._loaded.get(domain)
            if loaded is not None and today == self._day and await self._follow_domain(domain, loaded):
                continue
            # Days are counted together as they grow old: once a day everybody takes the counts as they are in Redis.
            await self._store.plant(domain, seed)
            fresh = await self._store.load(domain, self._half_lives, today)
            await self._store.tidy(domain, fresh)
            await self._store.follow(domain, fresh)
            self._loaded[domain] = fresh
            self._is_stale = True
        self._day = today

    async def _follow_domain(self, domain: str, loaded: Loaded) -> bool:
        number = loaded.number
        try:
            return await self._store.follow(domain, loaded)
        finally:
            self._is_stale |= loaded.number != number

    def _today(self) -> int:
        return int(self._clock() // DAY_S)
