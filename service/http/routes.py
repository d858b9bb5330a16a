"""The routes that FastAPI serves, and the description of the hot ones, which the door answers before FastAPI."""

import time
from hashlib import sha256
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path, Query, Request, Response
from fastapi.openapi.utils import get_openapi
from starlette.convertors import Convertor, register_url_convertor

from service.errors import StoreUnavailable, UnknownDomain, UnknownItem
from service.events.erasure import erase_waiting, mark_erased
from service.failures import REDIS_FAILURES, short_reason
from service.history.erase import erase_user
from service.http.dependencies import (
    Histories,
    IsDraining,
    RedisIsEmbedded,
    TheEventLog,
    TheItems,
    TheMetrics,
    TheModels,
    TheRedis,
)
from service.http.gate import ADMIN, READ, WRITE
from service.http.problems import MEDIA_TYPE
from service.http.schemas import (
    Activated,
    Alive,
    Erased,
    EventsBody,
    EventsTaken,
    Id,
    Item,
    ItemBody,
    ItemSet,
    ModelAnswer,
    ModelsAnswer,
    Problem,
    ProviderState,
    Ready,
    RecommendAnswer,
    RecommendBatchAnswer,
    RecommendBatchBody,
    RecommendBody,
    SimilarAnswer,
    StoredEvent,
    UserHistory,
)
from service.models.models import ModelState
from service.ranking.item_states import ItemState
from service.users import show


class AnyText(Convertor[str]):
    """An id in a path. Starlette's own `path` does not match a line break, which an id may hold."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        """As it is."""
        return value

    def to_string(self, value: str) -> str:
        """As it is."""
        return value


register_url_convertor("id", AnyText())
router = APIRouter()

RECOMMEND_JS = files("service.pages").joinpath("recommend.js").read_bytes()
RECOMMEND_JS_TAG = f'"{sha256(RECOMMEND_JS).hexdigest()[:32]}"'

AnId = Annotated[str, Path(min_length=1, max_length=256)]
AVersion = Annotated[str, Path(min_length=1, max_length=128)]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's description of the errors of a route: these, and those of every route."""
    return {status: {"model": Problem} for status in (*statuses, 401, 403, 429, 500)}


@router.post("/recommend", responses=problems(408, 413, 415, 422, 503), tags=["recommend"], dependencies=[READ])
async def recommend(body: RecommendBody) -> RecommendAnswer:
    """The best items per domain for one user, from the stored history or the one given."""
    raise AssertionError(f"the door answers this route, it stands here for OpenAPI: {body}")


@router.post("/recommend/batch", responses=problems(408, 413, 415, 422, 503), tags=["recommend"], dependencies=[READ])
async def recommend_batch(body: RecommendBatchBody) -> RecommendBatchAnswer:
    """The same for up to 256 requests, all answered by one model, or none."""
    raise AssertionError(f"the door answers this route, it stands here for OpenAPI: {body}")


@router.post(
    "/events", status_code=202, responses=problems(408, 413, 415, 422, 503), tags=["events"], dependencies=[WRITE]
)
async def events(body: EventsBody) -> EventsTaken:
    """Take up to 1,000 events, each once; the accepted ones are in their users' histories when this answers."""
    raise AssertionError(f"the door answers this route, it stands here for OpenAPI: {body}")


@router.get("/items/{domain}/{item_id:id}/similar", responses=problems(404, 422), tags=["items"], dependencies=[READ])
async def similar(
    models: TheModels,
    domain: AnId,
    item_id: AnId,
    k: Annotated[int, Query(ge=1, le=100)] = 10,
    domains: Annotated[list[Id] | None, Query(description="Domains to answer in; left out: all.")] = None,
) -> SimilarAnswer:
    """The items nearest to one item, per domain."""
    with models.used() as model:
        catalog = model.catalog
        for name in (domain, *(domains or ())):
            if name not in catalog.domain_number:
                raise UnknownDomain(name, catalog.domains, "domain" if name == domain else "domains")
        index = catalog.item_index(domain, item_id)
        if not index:
            raise UnknownItem(domain, item_id)
        asked = list(dict.fromkeys(domains or catalog.domains))
        lists = await model.similar(index, asked, k)
        return SimilarAnswer(
            domain=domain,
            item_id=item_id,
            model_version=model.version,
            domains={
                name: [
                    Item(item_id=catalog.item_ids[one], score=float(score), rank=rank, title=catalog.titles.get(one))
                    for rank, (one, score) in enumerate(zip(found.item_index, found.scores, strict=True), start=1)
                ]
                for name, found in zip(asked, lists, strict=True)
            },
        )


@router.put("/items/{domain}/{item_id:id}", responses=problems(404, 422, 503), tags=["items"], dependencies=[ADMIN])
async def put_item(models: TheModels, items: TheItems, domain: AnId, item_id: AnId, body: ItemBody) -> ItemSet:
    """Set whether an item may be recommended, and its categories. Every replica follows within a second."""
    catalog = models.serving.catalog
    if domain not in catalog.domain_number:
        raise UnknownDomain(domain, catalog.domains, "domain")
    categories = None if body.categories is None else tuple(body.categories)
    try:
        await items.put(domain, item_id, ItemState(body.available, categories))
        await models.follow_items()
    except REDIS_FAILURES as error:
        raise StoreUnavailable(short_reason(error)) from None
    known = bool(catalog.item_index(domain, item_id))
    return ItemSet(domain=domain, item_id=item_id, available=body.available, categories=body.categories, known=known)


@router.get("/users/{user_id:id}/history", responses=problems(422, 503), tags=["users"], dependencies=[READ])
async def history(histories: Histories, models: TheModels, user_id: AnId) -> UserHistory:
    """What is stored of a user, in terms of the served model."""
    stored = await histories.look_up(user_id)
    if stored is None:
        return UserHistory(user_id=user_id, events=[], older_items=0)
    catalog = models.serving.catalog
    shown = show(stored, catalog)
    return UserHistory(
        user_id=user_id,
        events=[
            StoredEvent(
                domain=one.domain,
                item_id=one.item_id,
                title=None
                if one.domain is None or one.item_id is None
                else catalog.titles.get(catalog.item_index(one.domain, one.item_id)),
                timestamp=one.timestamp,
            )
            for one in shown.events
        ],
        older_items=shown.older_items,
    )


@router.delete("/users/{user_id:id}", responses=problems(422, 503), tags=["users"], dependencies=[ADMIN])
async def erase(redis: TheRedis, event_log: TheEventLog, user_id: AnId) -> Erased:
    """Erase everything that is held on a user."""
    now = time.time()
    try:
        # First: what is written after this moment is of a user who came back.
        await mark_erased(redis, user_id, now)
        await event_log.flush()
        await erase_waiting(redis, user_id, now)
    except REDIS_FAILURES as error:
        raise StoreUnavailable(short_reason(error)) from None
    return Erased(user_id=user_id, erased=await erase_user(redis, user_id))


@router.get("/models", responses=problems(), tags=["models"], dependencies=[ADMIN])
async def list_models(models: TheModels) -> ModelsAnswer:
    """The bundles of the models folder, and which of them answers."""
    states = await models.report()
    return ModelsAnswer(active=models.serving.version, models=[_model(state) for state in states])


@router.post("/models/rollback", responses=problems(404, 409, 503), tags=["models"], dependencies=[ADMIN])
async def roll_back(models: TheModels) -> Activated:
    """Serve again what was active before the last activation."""
    before = models.serving.version
    return Activated(active=await models.roll_back(), before=before)


@router.post(
    "/models/{version}/activate", responses=problems(404, 409, 422, 503), tags=["models"], dependencies=[ADMIN]
)
async def activate(models: TheModels, version: AVersion) -> Activated:
    """Serve another bundle, once it is loaded and answers as it did at export."""
    before = models.serving.version
    await models.activate(version)
    return Activated(active=version, before=before)


@router.get("/healthz", tags=["operate"])
async def healthz() -> Alive:
    """Whether the process is alive."""
    return Alive()


@router.get("/readyz", tags=["operate"], responses={503: {"model": Ready}})
async def readyz(
    response: Response,
    histories: Histories,
    models: TheModels,
    redis_is_embedded: RedisIsEmbedded,
    is_draining: IsDraining,
) -> Ready:
    """Whether requests can be served, by which model, on what; 503 when the process is about to end.

    200 also while Redis is away: every replica would leave its load balancer at once, and popularity answers with them.
    """
    available = await histories.is_available()
    model = models.serving
    session = model.ranker.onnx_session
    status: Literal["ready", "degraded", "draining"] = "ready" if available else "degraded"
    if is_draining():
        status = "draining"
        response.status_code = 503
    return Ready(
        status=status,
        model_version=model.version,
        provider=ProviderState(asked=session.asked, got=session.got),
        history_store="available" if available else "unavailable",
        redis="embedded" if redis_is_embedded else "external",
    )


@router.get("/recommend.js", tags=["pages"], response_class=Response)
async def browser_module(request: Request) -> Response:
    """The client for web pages, an ES module."""
    headers = {"ETag": RECOMMEND_JS_TAG, "Cache-Control": "public, max-age=300"}
    if request.headers.get("if-none-match") == RECOMMEND_JS_TAG:
        return Response(status_code=304, headers=headers)
    return Response(RECOMMEND_JS, media_type="text/javascript", headers=headers)


@router.get("/metrics", tags=["operate"], response_class=Response)
async def metrics(metrics: TheMetrics) -> Response:
    """Metrics for Prometheus."""
    return Response(metrics.exposition(), media_type=metrics.media_type)


def _model(state: ModelState) -> ModelAnswer:
    manifest = state.manifest
    return ModelAnswer(
        model_version=state.version,
        state=state.state,
        live=state.is_live,
        problem=state.problem,
        created_at=None if manifest is None else manifest.created_at,
        domains=None if manifest is None else manifest.items_per_domain,
        evaluation=None if manifest is None else manifest.evaluation,
        mixture=None if manifest is None else manifest.mixture,
    )


def describe_problems(api: FastAPI) -> None:
    """Let OpenAPI say that errors are problem documents; FastAPI would declare them as application/json."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
            for operations in schema["paths"].values():
                for operation in operations.values():
                    for status, response in operation["responses"].items():
                        if status >= "4" and "Problem" in str(response["content"]):
                            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
