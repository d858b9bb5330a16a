"""The routes that FastAPI serves, and the description of the hot one, which the door answers before FastAPI."""

from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.openapi.utils import get_openapi

from service.http.dependencies import Histories, RedisIsEmbedded, TheMetrics, TheRanker
from service.http.problems import MEDIA_TYPE
from service.http.schemas import Alive, Problem, ProviderState, Ready, RecommendAnswer, RecommendBody

router = APIRouter()


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


@router.post("/recommend", responses=_problems(408, 413, 415, 422, 429, 500, 503), tags=["recommend"])
async def recommend(body: RecommendBody) -> RecommendAnswer:
    """The best items per domain for one user, from the stored history or the one given."""
    raise AssertionError(f"the door answers this route, it stands here for OpenAPI: {body}")


@router.get("/healthz", tags=["operate"])
async def healthz() -> Alive:
    """Whether the process is alive."""
    return Alive()


@router.get("/readyz", tags=["operate"])
async def readyz(histories: Histories, ranker: TheRanker, redis_is_embedded: RedisIsEmbedded) -> Ready:
    """Whether requests can be served, by which model, on what.

    200 also while Redis is away: every replica would leave its load balancer at once, and popularity answers with them.
    """
    available = await histories.is_available()
    session = ranker.onnx_session
    return Ready(
        status="ready" if available else "degraded",
        model_version=ranker.catalog.model_version,
        provider=ProviderState(asked=session.asked, got=session.got),
        history_store="available" if available else "unavailable",
        redis="embedded" if redis_is_embedded else "external",
    )


@router.get("/metrics", tags=["operate"], response_class=Response)
async def metrics(metrics: TheMetrics) -> Response:
    """Metrics for Prometheus."""
    return Response(metrics.exposition(), media_type=metrics.media_type)


def describe_problems(api: FastAPI) -> None:
    """Let OpenAPI say that errors are problem documents; FastAPI would declare them as application/json."""

    def openapi() -> dict[str, Any]:
        if api.openapi_schema is None:
            schema = get_openapi(title=api.title, version=api.version, description=api.description, routes=api.routes)
            for operations in schema["paths"].values():
                for operation in operations.values():
                    for status, response in operation["responses"].items():
                        if status >= "4":
                            response["content"] = {MEDIA_TYPE: response["content"]["application/json"]}
            api.openapi_schema = schema
        return api.openapi_schema

    api.openapi = openapi  # type: ignore[method-assign]
