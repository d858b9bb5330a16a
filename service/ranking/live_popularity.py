"""LivePopularity: counts accepted events, shares them with all replicas through Redis, and shows them to every model.

One task in the background calls `refresh`: an event is in every replica's view after at most two of its rounds. When Redis
is away, the last view stays, and what was counted here is sent when Redis is back.
"""

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from formats.bundle import Bundle
from service.ranking.catalog import Catalog
from service.ranking.decay import DecayedCounts
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
        # A name of this process alone, so that Redis knows which of its changes it has counted.
        self._writer = uuid.uuid4().hex
        self._number = 0
        self._pending: Counter[tuple[str, str, int]] = Counter()  # domain, item id, day
        self._sending: dict[str, tuple[int, Change]] = {}

    def follow(self, bundle: Bundle, catalog: Catalog) -> None:
        """Show the counts to this model too; until Redis has answered, those of its bundle."""
        seeds = seeds_of(bundle)
        wanted = bundle.manifest.recent_half_lives_days
        if fresh := [days for days in wanted if days not in self._half_lives]:
            self._half_lives += fresh
            self._loaded.clear()
        viewer = Viewer(catalog, [self._half_lives.index(days) for days in wanted], ranked_row=0)
        self._seeds.update(seeds)
        own = {domain: self._of_seed(seed) for domain, seed in seeds.items()}
        known = {domain: loaded.counts for domain, loaded in self._loaded.items()}
        self._models[catalog.model_version] = _Model(viewer, viewer.view(own | known))

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
        await self.send()
        if await self._follow_changes():
            counts = {domain: loaded.counts for domain, loaded in self._loaded.items()}
            for model in list(self._models.values()):
                # Sorting a large catalogue takes longer than a request may wait.
                model.view = await asyncio.to_thread(model.viewer.view, counts)

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

    async def _follow_changes(self) -> bool:
        """Whether anything is different."""
        today, is_new = self._today(), False
        for domain, seed in list(self._seeds.items()):
            loaded = self._loaded.get(domain)
            if loaded is not None and today == self._day:
                number = loaded.number
                if await self._store.follow(domain, loaded):
                    is_new |= loaded.number != number
                    continue
            # Days are counted together as they grow old: once a day everybody takes the counts as they are in Redis.
            half_lives = list(self._half_lives)
            await self._store.plant(domain, seed)
            fresh = await self._store.load(domain, half_lives, today)
            await self._store.tidy(domain, fresh)
            await self._store.follow(domain, fresh)
            if half_lives == self._half_lives:
                self._loaded[domain] = fresh
                is_new = True
        self._day = today
        return is_new

    def _of_seed(self, seed: Seed) -> DecayedCounts:
        counts = DecayedCounts(self._half_lives, self._today())
        counts.add_decayed(counts.rows(seed.item_ids), seed.day, seed.at(self._half_lives))
        return counts

    def _today(self) -> int:
        return int(self._clock() // DAY_S)
