"""LiveModel: a bundle that is loaded, checked and ranking."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import numpy as np
from numpy.typing import NDArray

from formats.bundle import Bundle
from service.errors import SimilarUnknown
from service.memory import give_memory_back
from service.metrics import Metrics
from service.ranking.catalog import Catalog
from service.ranking.item_states import CatalogStates, ItemStates, states_in
from service.ranking.live_popularity import LivePopularity
from service.ranking.popularity_view import PopularityView
from service.ranking.query import DomainList
from service.ranking.ranker import Ranker, open_ranker
from service.ranking.similar import Similar, open_similar
from service.settings import Settings

log = logging.getLogger(__name__)


class LiveModel:
    """Everything that answers for one model version. Who uses it says so, and it is not closed meanwhile."""

    def __init__(
        self,
        bundle: Bundle,
        ranker: Ranker,
        similar: Similar | None,
        popularity: LivePopularity,
        states: CatalogStates,
    ) -> None:
        self.bundle, self.ranker, self.states = bundle, ranker, states
        self._similar, self._popularity = similar, popularity
        self._uses = 0
        self._unused = asyncio.Event()
        self._unused.set()
        self.resources = AsyncExitStack()

    @property
    def version(self) -> str:
        """The model_version."""
        return self.ranker.catalog.model_version

    @property
    def catalog(self) -> Catalog:
        """Its items."""
        return self.ranker.catalog

    @property
    def popularity(self) -> PopularityView:
        """What is popular now, in its terms."""
        return self._popularity.view(self.version)

    async def similar(self, item_index: int, domains: Sequence[str], k: int) -> list[DomainList]:
        """The items nearest to one, of those on sale, in each of these domains.

        Raises:
            SimilarUnknown: the bundle says nothing of it.
        """
        if self._similar is None:
            raise SimilarUnknown
        return await asyncio.to_thread(self._similar.to, item_index, domains, k, self.states.unavailable)

    @contextmanager
    def used(self) -> Iterator["LiveModel"]:
        """Keep it open within the block."""
        self._uses += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._uses -= 1
            if not self._uses:
                self._unused.set()

    async def see(self, states: ItemStates) -> None:
        """Take over what operators set of items."""
        if states.version != self.states.version:
            self.states = await asyncio.to_thread(states_in, states, self.catalog)

    async def close(self) -> None:
        """Wait until nobody uses it, then give its memory back."""
        await self._unused.wait()
        await self.resources.aclose()
        await asyncio.to_thread(give_memory_back)


async def open_model(
    bundle: Bundle, settings: Settings, popularity: LivePopularity, states: ItemStates, metrics: Metrics
) -> LiveModel:
    """Load a bundle beside whatever is served, and check it.

    Raises:
        WorkFailed: its graph cannot be loaded, or answers otherwise than at export.
    """
    version = bundle.manifest.model_version

    def recent() -> NDArray[np.float32]:
        return popularity.view(version).recent

    async with AsyncExitStack() as resources:
        resources.callback(popularity.unfollow, version)
        opening = open_ranker(bundle, settings, recent, metrics.batch, metrics.gpu_run)
        ranker = await resources.enter_async_context(opening)
        catalog, session = ranker.catalog, ranker.onnx_session
        found = await asyncio.to_thread(states_in, states, catalog)
        similar = await asyncio.to_thread(open_similar, bundle, catalog)
        await popularity.follow(bundle, catalog)
        metrics.serves(version, session.asked, session.got)
        resources.callback(metrics.retires, version)
        log.info(
            "model %s is loaded on %s",
            version,
            session.got,
            extra={"provider_asked": session.asked, "provider_got": session.got},
        )
        model = LiveModel(bundle, ranker, similar, popularity, found)
        model.resources = resources.pop_all()
    return model
