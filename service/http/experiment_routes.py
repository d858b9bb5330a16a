"""Routes of experiments: define, start, grow, stop, look."""

from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from service.errors import FieldError, InvalidRequest, UnknownExperiment
from service.experiments.definition import Experiment, read_experiment
from service.http.dependencies import TheExperiments
from service.http.gate import ADMIN
from service.http.routes import AnId, problems

router = APIRouter(prefix="/experiments", tags=["experiments"], dependencies=[ADMIN])

_BODY = {
    "required": True,
    "description": "The definition, docs/experiments.md; `key` is that of the path.",
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "hypothesis": "the new model is clicked more",
                "variants": [{"name": "old"}, {"name": "new", "policy": {"model_version": "20261124-1"}}],
                "traffic": 0.1,
                "planned_end": "2026-12-08",
                "state": "running",
            },
        }
    },
}


@router.get("", responses=problems())
async def list_experiments(experiments: TheExperiments) -> list[dict[str, Any]]:
    """All definitions, by key."""
    found = experiments.current.by_key
    return [_shown(found[key]) for key in sorted(found)]


@router.get("/{key}", responses=problems(404, 422))
async def experiment(experiments: TheExperiments, key: AnId) -> dict[str, Any]:
    """One definition."""
    found = experiments.current.by_key.get(key)
    if found is None:
        raise UnknownExperiment(key)
    return _shown(found)


@router.put("/{key}", responses=problems(409, 413, 422, 503), openapi_extra={"requestBody": _BODY})
async def put_experiment(request: Request, experiments: TheExperiments, key: AnId) -> dict[str, Any]:
    """Make an experiment as the body says; its `state` starts and stops it. While it runs, traffic may only grow."""
    try:
        body = msgspec.json.decode(await request.body(), type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest([FieldError("", str(error))]) from None
    body["key"] = msgspec.Raw(msgspec.json.encode(key))
    return _shown(await experiments.put(read_experiment(msgspec.json.encode(body))))


@router.delete("/{key}", status_code=204, responses=problems(404, 409, 422, 503))
async def delete_experiment(experiments: TheExperiments, key: AnId) -> Response:
    """Remove a definition that is not running; what was logged stays."""
    if not await experiments.delete(key):
        raise UnknownExperiment(key)
    return Response(status_code=204)


def _shown(one: Experiment) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(one)
    return found
