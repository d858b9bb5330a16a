"""create_app: the one place that builds the service."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from formats.errors import WorkFailed
from service.access.access import access_of
from service.background import repeated
from service.events.intake import Intake
from service.events.stream import EventLog
from service.experiments.serving import versions_of
from service.experiments.store import ExperimentStore
from service.failures import REDIS_FAILURES, short_reason
from service.history.embedded import is_embedded, redis_at
from service.history.store import open_histories
from service.history.write import HistoryRules, HistoryWriter
from service.http.experiment_routes import router as experiment_router
from service.http.fast import App, Door, Message, Receive, Scope, Send
from service.http.gate import Gate
from service.http.problems import answer_problems
from service.http.routes import describe_problems, router
from service.memory import give_large_blocks_back
from service.metrics import Metrics
from service.models.models import Models
from service.models.registry import Registry
from service.ranking.item_states import ItemStateStore
from service.ranking.live_popularity import LivePopularity
from service.recommend import Recommender
from service.record import Recorder
from service.redis_client.client import open_redis
from service.settings import Settings, read_settings
from service.tracing import open_tracing

if TYPE_CHECKING:
    from service.spans import Tracing

log = logging.getLogger(__name__)


class Service(Door):
    """The application, and why it did not start, for the command that started it."""

    failed_start: WorkFailed | None = None

    def __init__(self, api: FastAPI, gate: Gate, metrics: Metrics, settings: Settings) -> None:
        super().__init__(api, gate, metrics, settings.body_limit_bytes, settings.request_timeout_ms / 1000)
        self._serve: App = super().__call__
        if settings.cors_origins:
            self._serve = CORSMiddleware(
                self._serve,  # type: ignore[arg-type]
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "PUT", "DELETE"],
                allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms"],
                expose_headers=["Retry-After", "Server-Timing", "X-Request-ID"],
            )

    def trace(self, tracing: "Tracing") -> None:
        """Make a span of each request from now on."""
        self._serve = tracing.around(self._serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; or the lifespan, whose failure is told in one line instead of a traceback."""
        if scope["type"] != "lifespan":
            await self._serve(scope, receive, send)
            return

        async def in_one_line(message: Message) -> None:
            if message["type"] == "lifespan.startup.failed" and self.failed_start is not None:
                message = {**message, "message": str(self.failed_start)}
            await send(message)

        await self.api(scope, receive, in_one_line)


def create_app(settings: Settings | None = None) -> Service:
    """A fresh application; everything it holds is opened in its lifespan and closed in reverse."""
    settings = read_settings() if settings is None else settings
    metrics = Metrics()
    routes = [*router.routes, *experiment_router.routes]
    gate = Gate(access_of(settings), settings.admin_port, settings.docs, settings.metrics, routes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        give_large_blocks_back()
        async with AsyncExitStack() as resources:
            try:
                tracing = await resources.enter_async_context(open_tracing())
                parts = await _open(settings, metrics, resources)
            except WorkFailed as error:
                service.failed_start = error
                raise
            if tracing is not None:
                service.trace(tracing)
            yield {**parts, "metrics": metrics, "gate": gate, "is_draining": lambda: service.draining}

    api = FastAPI(
        title="SyNCRec",
        version="1",
        description="Recommendations per domain from one shared history.",
        lifespan=lifespan,
        redirect_slashes=False,
        # FastAPI's own spans would be second ones, and name paths, in which user ids are.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    api.include_router(router)
    api.include_router(experiment_router)
    answer_problems(api, routes)
    describe_problems(api)
    service = Service(api, gate, metrics, settings)
    return service


async def _open(settings: Settings, metrics: Metrics, resources: AsyncExitStack) -> dict[str, Any]:
    """Everything that outlives a request, by the name under which routes ask for it."""
    url = resources.enter_context(redis_at(settings.redis_url, settings.data_dir))
    histories = await resources.enter_async_context(
        open_histories(url, settings.redis_timeout_ms, settings.redis_connections)
    )
    # Reads of histories have connections of their own: nothing that takes longer may hold one of those.
    redis = await resources.enter_async_context(
        open_redis(url, timeout_ms=settings.write_timeout_ms, connections=settings.redis_connections)
    )
    items, popularity = ItemStateStore(redis), LivePopularity(redis, settings.popularity_half_life_days)
    models = Models(settings, Registry(redis), popularity, items, metrics)
    await models.start()
    resources.push_async_callback(models.close)
    experiments = ExperimentStore(redis)

    async def follow_experiments() -> None:
        await experiments.refresh()
        await models.keep(versions_of(experiments.current))

    event_log = EventLog(redis, queue_limit=settings.event_queue_limit, stream_limit=settings.event_stream_limit)
    resources.push_async_callback(event_log.close, settings.write_timeout_ms / 1000)
    rules = HistoryRules(settings.history_limit, settings.history_days, settings.keep_repeats)
    writer = HistoryWriter(redis, settings.write_timeout_ms, rules)
    resources.push_async_callback(writer.close)
    for name, work, pause_s in (
        ("models", models.follow, 0.5),
        ("items", models.follow_items, 0.25),
        ("popularity", popularity.refresh, 1.0),
        ("experiments", follow_experiments, 0.5),
        ("event log", event_log.flush, 0.2),
    ):
        await resources.enter_async_context(repeated(name, work, pause_s))
    resources.push_async_callback(_send_counts, popularity, settings.write_timeout_ms / 1000)
    if not await histories.is_available():
        log.warning("Redis does not answer: serving by popularity until it does")
    return {
        "recommender": Recommender(histories, models, experiments, Recorder(event_log), metrics),
        "histories": histories,
        "models": models,
        "items": items,
        "experiments": experiments,
        "event_log": event_log,
        "intake": Intake(writer, event_log, popularity.count),
        "redis": redis,
        "redis_is_embedded": is_embedded(url),
    }


async def _send_counts(popularity: LivePopularity, deadline_s: float) -> None:
    """What was counted since the last round, before this process ends."""
    try:
        async with asyncio.timeout(deadline_s):
            await popularity.send()
    except REDIS_FAILURES as error:
        log.warning("the latest events do not count for popularity: Redis fails (%s)", short_reason(error))
