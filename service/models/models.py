"""Models: which bundle serves, and how another takes its place."""

import asyncio
import logging
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from formats.bundle import MANIFEST, Bundle, Manifest, list_bundles, newest_bundle, read_bundle
from formats.errors import WorkFailed
from service.errors import BundleRefused, NothingToRollBack, StoreUnavailable, UnknownModel
from service.metrics import Metrics
from service.models.live import LiveModel, open_model
from service.models.registry import Active, Registry
from service.ranking.item_states import ItemStateStore
from service.ranking.live_popularity import LivePopularity
from service.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
# A bundle that was refused may be mended, or the memory for it be there again.
RETRY_S = 30.0

State = Literal["active", "previous", "available", "damaged"]


@dataclass(frozen=True)
class ModelState:
    """One bundle of the models folder.

    manifest: None where it is damaged; `problem` says why. problem: also why a whole one was refused when it was tried here.
    is_live: whether it is loaded here; several are, where experiments compare them.
    """

    version: str
    state: State
    manifest: Manifest | None
    problem: str | None
    is_live: bool


class Models:
    """The models of one process. Requests use what is served at their begin, to their end."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        popularity: LivePopularity,
        items: ItemStateStore,
        metrics: Metrics,
    ) -> None:
        self._settings, self._registry, self._metrics = settings, registry, metrics
        self._popularity, self._items = popularity, items
        self._folder: Path = settings.models_dir
        self._serving: LiveModel
        self._live: dict[str, LiveModel] = {}  # the one that serves, and those that are kept beside it
        self._kept: frozenset[str] = frozenset()
        self._record: Active | None = None
        self._refused: dict[str, tuple[str, float]] = {}  # version -> why, and when
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._changing = asyncio.Lock()

    @property
    def serving(self) -> LiveModel:
        """The model that answers new requests."""
        return self._serving

    @contextmanager
    def used(self, version: str | None = None) -> Iterator[LiveModel]:
        """A live model, kept open within the block: the one that serves now, or a version of `keep`.

        Raises:
            UnknownModel: that version is not live here.
        """
        model = self._serving if version is None else self._live.get(version)
        if model is None:
            raise UnknownModel(str(version))
        with model.used():
            yield model

    async def keep(self, versions: Collection[str]) -> None:
        """Hold these versions live too, whichever serves, and let go of others. One that is refused is tried again later."""
        async with self._changing:
            self._kept = frozenset(versions)
            for version in sorted(self._kept - self._live.keys()):
                if not self._was_refused(version):
                    await self._try_to_open(version)
            self._let_go()

    async def start(self) -> None:
        """Load the active model. If Redis does not say which, or it is refused, the newest; if none is active yet, the newest is now.

        Raises:
            WorkFailed: there is no bundle, or the one to serve is refused.
        """
        try:
            self._record = await self._registry.read()
        except StoreUnavailable as error:
            log.warning("which model is active is not known, the newest serves: %s", error)
        if self._record is not None:
            try:
                self._serving = await self._open(self._record.version)
            except (UnknownModel, BundleRefused) as error:
                log.error("the newest model serves, not the active one: %s", error)  # noqa: TRY400
            else:
                return
        self._serving = await self._newest()
        if self._record is None:
            with suppress(StoreUnavailable):  # then the next replica to start says so
                await self._registry.begin(self._serving.version)

    async def _newest(self) -> LiveModel:
        """The newest bundle that is whole; what is passed over is told."""
        passed_over: list[UnknownModel | BundleRefused] = []
        for version in await asyncio.to_thread(list_bundles, self._folder):
            try:
                model = await self._open(version)
            except (UnknownModel, BundleRefused) as error:
                passed_over.append(error)
                continue
            for refused in passed_over:
                log.error("passed over: %s", refused)
            return model
        if not passed_over:
            await asyncio.to_thread(newest_bundle, self._folder)  # says that there is none, and how to make one
        first = passed_over[0]
        raise WorkFailed(first.reason if isinstance(first, BundleRefused) else str(first))

    async def close(self) -> None:
        """End ranking, once nobody waits for it any more."""
        await asyncio.gather(*(model.close() for model in self._live.values()), *self._leaving.values())

    async def activate(self, version: str) -> None:
        """Serve another bundle, here at once and on all replicas as soon as they have loaded it.

        Raises:
            UnknownModel: the models folder has no such bundle.
            BundleRefused: it is damaged, cannot be loaded, or answers otherwise than at export. The old one serves on.
            StoreUnavailable: Redis does not take the change. The old one serves on.
        """
        async with self._changing:
            served = self._serving.version
            model = self._live.get(version) or await self._open(version)
            try:
                await self._registry.activate(version, served)
                self._switch_to(model)
            finally:
                self._let_go()

    async def roll_back(self) -> str:
        """Serve again what was active before the last activation.

        Returns:
            Its version.
        Raises:
            NothingToRollBack: nothing was activated.
            UnknownModel, BundleRefused, StoreUnavailable: as `activate`.
        """
        async with self._changing:
            record = await self._registry.read()
            if record is None or not record.previous:
                raise NothingToRollBack
            back = record.previous
            model = self._live.get(back) or await self._open(back)
            try:
                if not await self._registry.roll_back(record.version, back):
                    raise NothingToRollBack
                self._switch_to(model)
            finally:
                self._let_go()
            return back

    async def follow(self) -> None:
        """Serve what another replica has activated.

        Raises:
            StoreUnavailable: Redis does not answer; call again.
        """
        async with self._changing:
            record = await self._registry.read()
            self._record = record
            if record is None or record.version == self._serving.version or self._was_refused(record.version):
                return
            model = self._live.get(record.version) or await self._try_to_open(record.version)
            if model is not None:
                self._switch_to(model)
                self._let_go()

    async def follow_items(self) -> None:
        """Take over what operators set of items, for every model in use.

        Raises:
            RedisError, OSError, TimeoutError: Redis does not answer; call again.
        """
        await self._items.refresh()
        for model in list(self._live.values()):
            await model.see(self._items.current)

    async def report(self) -> list[ModelState]:
        """All bundles of the folder, newest first."""
        found = await asyncio.to_thread(list_bundles, self._folder)
        with suppress(StoreUnavailable):  # then what was known last is shown
            self._record = await self._registry.read()
        record, serving = self._record, self._serving.version
        states = []
        for version, manifest in found.items():
            state: State = "available"
            if isinstance(manifest, WorkFailed):
                states.append(ModelState(version, "damaged", None, str(manifest), version in self._live))
                continue
            if version == serving:
                state = "active"
            elif record is not None and version == record.previous:
                state = "previous"
            problem = self._refused.get(version)
            states.append(ModelState(version, state, manifest, problem[0] if problem else None, version in self._live))
        return states

    def _switch_to(self, model: LiveModel) -> None:
        old, self._serving = self._serving, model
        if old is not model:
            log.info("serving model %s in place of %s", model.version, old.version)

    def _let_go(self) -> None:
        """Close what neither serves nor is kept, each when nobody uses it any more."""
        for version, model in list(self._live.items()):
            if model is not self._serving and version not in self._kept:
                del self._live[version]
                self._leaving[version] = asyncio.get_running_loop().create_task(self._close(model))

    async def _close(self, model: LiveModel) -> None:
        await model.close()
        del self._leaving[model.version]

    async def _try_to_open(self, version: str) -> LiveModel | None:
        try:
            return await self._open(version)
        except (UnknownModel, BundleRefused) as error:
            self._refuse(version, error)
            self._metrics.failure("model", type(error).__name__)
            log.error("serving %s on: %s", self._serving.version, error)  # noqa: TRY400
            return None

    async def _open(self, version: str) -> LiveModel:
        path = self._folder / version
        if not VERSION.fullmatch(version) or not path.is_dir():
            raise UnknownModel(version)
        # Its last requests may still be under way in what was loaded before.
        await asyncio.gather(*(task for name, task in self._leaving.items() if name == version))
        try:
            model = await self._load(await asyncio.to_thread(read_bundle, path))
        except (WorkFailed, OSError) as error:
            self._refuse(version, error)
            raise BundleRefused(version, str(error)) from error
        self._refused.pop(version, None)
        return model

    async def _load(self, bundle: Bundle) -> LiveModel:
        if bundle.manifest.model_version != bundle.path.name:
            raise WorkFailed(
                f"{bundle.path / MANIFEST}: model_version: '{bundle.manifest.model_version}', not the folder's name"
            )
        model = await open_model(bundle, self._settings, self._popularity, self._items.current, self._metrics)
        self._live[model.version] = model
        return model

    def _refuse(self, version: str, error: Exception) -> None:
        self._refused[version] = (str(error), asyncio.get_running_loop().time())

    def _was_refused(self, version: str) -> bool:
        refused = self._refused.get(version)
        return refused is not None and asyncio.get_running_loop().time() - refused[1] < RETRY_S
