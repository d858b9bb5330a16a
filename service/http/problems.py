"""Errors as problem documents (RFC 9457): the one table from error to status, for the hot route and FastAPI alike."""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    BundleRefused,
    ChangeRefused,
    DeadlineExceeded,
    FieldError,
    Forbidden,
    HistoryUnavailable,
    InvalidRequest,
    NothingToRollBack,
    PartFailed,
    QueueFull,
    RateLimited,
    ServiceError,
    StoreUnavailable,
    Unauthenticated,
    UnknownExperiment,
    UnknownItem,
    UnknownModel,
    UnsupportedMediaType,
)

MEDIA_TYPE = "application/problem+json"

STATUS: dict[type[ServiceError], int] = {
    InvalidRequest: 422,
    BodyTooLarge: 413,
    BodyTooSlow: 408,
    UnsupportedMediaType: 415,
    Unauthenticated: 401,
    Forbidden: 403,
    RateLimited: 429,
    QueueFull: 429,
    DeadlineExceeded: 503,
    UnknownItem: 404,
    UnknownModel: 404,
    BundleRefused: 409,
    NothingToRollBack: 409,
    ChangeRefused: 409,
    UnknownExperiment: 404,
    StoreUnavailable: 503,
    PartFailed: 503,
}


def status_of(error: ServiceError) -> int:
    """HTTP status of the nearest ancestor in the table."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def headers_of(error: ServiceError) -> tuple[tuple[bytes, bytes], ...]:
    """What the status asks for beside the document: when to come again, how to say who one is."""
    if isinstance(error, QueueFull | RateLimited | StoreUnavailable | HistoryUnavailable):
        return ((b"retry-after", b"%d" % error.retry_after_s),)
    if isinstance(error, Unauthenticated):
        return ((b"www-authenticate", b"Bearer"),)
    return ()


def type_of(error: ServiceError) -> str:
    """The problem's type: a name that programs can compare, `urn:syncrec:problem:unknown-domain`."""
    return "urn:syncrec:problem:" + re.sub(r"(?<!^)(?=[A-Z])", "-", type(error).__name__).lower()


def encode_problem(
    status: int, detail: str, request_id: str, errors: Sequence[FieldError] = (), kind: str = "about:blank"
) -> bytes:
    """The document as JSON."""
    return orjson.dumps(
        {
            "type": kind,
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "request_id": request_id,
            "errors": [{"field": error.field, "detail": error.detail} for error in errors],
        }
    )


def encode_error(error: ServiceError, request_id: str) -> tuple[int, bytes]:
    """Status and document of one of our errors."""
    errors = error.errors if isinstance(error, InvalidRequest) else ()
    status = status_of(error)
    return status, encode_problem(status, str(error), request_id, errors, type_of(error))


def encode_bug(request_id: str) -> bytes:
    """The document of an error that is ours: nothing but the id under which the log has it."""
    return encode_problem(500, f"an error of the service; its log has it as {request_id}", request_id)


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Pydantic's error list, with places as `history[0].item_id`."""
    found: dict[FieldError, None] = {}
    for error in errors:
        if error["type"] == "json_invalid":
            found[FieldError("", f"not JSON: {error.get('ctx', {}).get('error', error['msg'])}")] = None
            continue
        place = ""
        for step in error["loc"]:
            if step in {"body", "float", "str", "[key]"} or str(step).startswith("constrained-"):
                continue  # which branch of a union was tried says nothing about the request
            place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else str(step)
        found[FieldError(place, error["msg"])] = None
    return list(found)


def answer_problems(api: FastAPI, routes: Sequence[BaseRoute]) -> None:
    """Make FastAPI's own errors and ours problem documents. The door logs what is no condition but a bug."""

    def respond(status: int, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
        return Response(body, status, headers, media_type=MEDIA_TYPE)

    async def service_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ServiceError)
        headers = {name.decode(): value.decode() for name, value in headers_of(error)}
        return respond(*encode_error(error, request.scope["request_id"]), headers)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        # FastAPI's word for bytes that are no text, or are nested too deep; other bad JSON is 422 to FastAPI, too.
        if error.status_code == 400:
            refused = InvalidRequest([FieldError("", "not JSON")])
            return respond(*encode_error(refused, request.scope["request_id"]))
        body = encode_problem(error.status_code, str(error.detail), request.scope["request_id"])
        headers = error.headers
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            # Starlette names the methods of one route, and a path may have several.
            paths = [path for route in routes if (path := getattr(route, "path", "")) and _matches(route, request)]
            methods = {
                method for route in routes if getattr(route, "path", "") in paths[:1] for method in _methods(route)
            }
            headers = {"Allow": ", ".join(sorted(methods))} if methods else headers
        return respond(error.status_code, body, headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        refused = InvalidRequest(field_errors(error.errors()))
        return respond(*encode_error(refused, request.scope["request_id"]))

    async def bug(request: Request, error: Exception) -> Response:  # noqa: ARG001 (Starlette raises it again, to the door)
        return respond(500, encode_bug(request.scope["request_id"]))

    api.add_exception_handler(ServiceError, service_error)
    api.add_exception_handler(HTTPException, http_error)
    api.add_exception_handler(RequestValidationError, invalid)
    api.add_exception_handler(Exception, bug)


def _matches(route: BaseRoute, request: Request) -> bool:
    return route.matches(request.scope)[0] is not Match.NONE


def _methods(route: BaseRoute) -> set[str]:
    return getattr(route, "methods", None) or set()
