"""create_app: the one place that builds the service."""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI

from formats.bundle import newest_bundle
from formats.errors import WorkFailed
from service.history.embedded import is_embedded, redis_at
from service.history.store import open_histories
from service.http.fast import Door, Message, Receive, Scope, Send
from service.http.problems import answer_problems
from service.http.routes import describe_problems, router
from service.metrics import Metrics
from service.ranking.ranker import open_ranker
from service.recommend import Recommender
from service.settings import Settings, read_settings

log = logging.getLogger(__name__)


class Service(Door):
    """The application, and why it did not start, for the command that started it."""

    failed_start: WorkFailed | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; or the lifespan, whose failure is told in one line instead of a traceback."""
        if scope["type"] != "lifespan":
            await super().__call__(scope, receive, send)
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

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as resources:
            try:
                state = await _open(settings, metrics, resources)
            except WorkFailed as error:
                service.failed_start = error
                raise
            yield state

    api = FastAPI(
        title="SyNCRec",
        version="1",
        description="Recommendations per domain from one shared history.",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    api.include_router(router)
    answer_problems(api)
    describe_problems(api)
    service = Service(api, metrics, settings.body_limit_bytes, settings.request_timeout_ms / 1000)
    return service


async def _open(settings: Settings, metrics: Metrics, resources: AsyncExitStack) -> dict[str, Any]:
    bundle = newest_bundle(settings.models_dir)
    url = resources.enter_context(redis_at(settings.redis_url, settings.data_dir))
    histories = await resources.enter_async_context(
        open_histories(url, settings.redis_timeout_ms, settings.redis_connections)
    )
    ranker = await resources.enter_async_context(open_ranker(bundle, settings, metrics.batch))
    session, version = ranker.onnx_session, bundle.manifest.model_version
    metrics.serves(version, session.asked, session.got)
    log.info(
        "serving model %s on %s",
        version,
        session.got,
        extra={"provider_asked": session.asked, "provider_got": session.got, "redis_is_embedded": is_embedded(url)},
    )
    if not await histories.is_available():
        log.warning("Redis does not answer: serving by popularity until it does")
    return {
        "recommender": Recommender(histories, ranker, metrics),
        "histories": histories,
        "ranker": ranker,
        "metrics": metrics,
        "redis_is_embedded": is_embedded(url),
    }
