"""The door: one plain ASGI callable in front of FastAPI. It answers POST /recommend itself and sends the rest on.

FastAPI's routing, dependencies and pydantic cost about 180 microseconds a request, as much as the model; a middleware
by function costs 30 % of the throughput. So neither stands before the hot route. What holds for every request is here:
the request id, the limit on bodies, and that every error is a problem document.
"""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pydantic

from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    FieldError,
    InvalidRequest,
    QueueFull,
    ServiceError,
    UnsupportedMediaType,
)
from service.http.answers import encode_answer
from service.http.problems import MEDIA_TYPE, encode_bug, encode_error, field_errors
from service.http.schemas import RecommendBody
from service.identifiers import new_uuid7
from service.logs import request_id as logged_request_id
from service.metrics import Metrics
from service.recommend import Recommender, RecommendRequest

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]

log = logging.getLogger(__name__)

HOT_PATH = "/recommend"
BODY_TIMEOUT_S = 5.0
# A client that is refused while it still sends sees a broken connection, not the 413: so read on, within reason.
DRAIN_BYTES = 16 * 2**20
DRAIN_TIMEOUT_S = 2.0

_JSON: Headers = ((b"content-type", b"application/json"),)
_PROBLEM: Headers = ((b"content-type", MEDIA_TYPE.encode()),)
_REQUEST_ID = re.compile(rb"[\x20-\x7e]{1,128}")
_decode = msgspec.json.Decoder(RecommendRequest).decode


class ClientLeft(Exception):  # noqa: N818 (no error of the service: there is nobody to answer)
    """The client closed the connection before its request was complete."""


class Door:
    """The whole service as one ASGI application."""

    def __init__(self, api: App, metrics: Metrics, body_limit_bytes: int, request_timeout_s: float) -> None:
        self.api = api
        self._metrics = metrics
        self._body_limit_bytes = body_limit_bytes
        self._request_timeout_s = request_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the lifespan."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        scope["request_id"] = _request_id(scope)
        logged_request_id.set(scope["request_id"])
        if scope["path"] == HOT_PATH and scope["method"] == "POST":
            await self._recommend(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def _recommend(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = decode_request(await self._read_json(scope, receive))
            start = time.monotonic()
            recommender: Recommender = scope["state"]["recommender"]
            answer = await recommender.recommend(request, deadline=start + self._request_timeout_s)
            body = encode_answer(answer)
        except ClientLeft:
            return
        except ServiceError as error:
            await self._refuse(scope, send, error)
        except Exception:  # our bug, not a condition: 500 with the request id, and the traceback in the log
            log.exception("bug")
            await self._respond(scope, send, 500, encode_bug(scope["request_id"]), _PROBLEM)
        else:
            total_s = time.monotonic() - start
            self._metrics.answered(answer.source, answer.catalog.model_version, total_s, total_s - answer.waited_s)
            await self._respond(scope, send, 200, body, _JSON)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", scope["request_id"].encode())]
                self._metrics.response(_route(scope), message["status"])
            await send(message)

        try:
            if _content_length(scope) > self._body_limit_bytes:
                await _drain(receive)
                raise BodyTooLarge(self._body_limit_bytes)
            await self.api(scope, receive, send_on)
        except ServiceError as error:
            await self._refuse(scope, send, error)
        except Exception:  # our bug, not a condition: 500 with the request id, and the traceback in the log
            log.exception("bug")
            if not started:
                await self._respond(scope, send, 500, encode_bug(scope["request_id"]), _PROBLEM)

    async def _read_json(self, scope: Scope, receive: Receive) -> bytes:
        _check_media_type(scope)
        limit = self._body_limit_bytes
        if _content_length(scope) > limit:
            await _drain(receive)
            raise BodyTooLarge(limit)
        message = await _receive(receive)
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await _receive(receive)
            body += message.get("body", b"")
            if len(body) > limit:
                await _drain(receive)
                raise BodyTooLarge(limit)
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body

    async def _refuse(self, scope: Scope, send: Send, error: ServiceError) -> None:
        status, body = encode_error(error, scope["request_id"])
        retry = ((b"retry-after", b"%d" % error.retry_after_s),) if isinstance(error, QueueFull) else ()
        await self._respond(scope, send, status, body, (*_PROBLEM, *retry))

    async def _respond(self, scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
        self._metrics.response(_route(scope), status)
        own = ((b"content-length", b"%d" % len(body)), (b"x-request-id", scope["request_id"].encode()))
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *own]})
        await send({"type": "http.response.body", "body": body})


def decode_request(body: bytes) -> RecommendRequest:
    """The body of /recommend, checked in form.

    Raises:
        InvalidRequest: names every wrong field.
    """
    try:
        return _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The slow way, which finds all errors and their places, is only for who made one.
        try:
            RecommendBody.model_validate_json(body)
        except pydantic.ValidationError as refused:
            raise InvalidRequest(field_errors(refused.errors(include_url=False, include_input=False))) from None
        raise InvalidRequest([FieldError("", str(error))]) from None


def _request_id(scope: Scope) -> str:
    given = _header(scope, b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    return new_uuid7()


def _header(scope: Scope, wanted: bytes) -> bytes | None:
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return None


def _content_length(scope: Scope) -> int:
    given = _header(scope, b"content-length")
    return int(given[:18]) if given and given.isdigit() else 0


def _check_media_type(scope: Scope) -> None:
    given = _header(scope, b"content-type")
    if given is None:
        return
    name = given.split(b";", 1)[0].strip().lower()
    if name != b"application/json" and not (name.startswith(b"application/") and name.endswith(b"+json")):
        raise UnsupportedMediaType


async def _receive(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            message = await receive()
    except TimeoutError:
        raise BodyTooSlow from None
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


async def _drain(receive: Receive) -> None:
    read = 0
    try:
        async with asyncio.timeout(DRAIN_TIMEOUT_S):
            more = True
            while more and read < DRAIN_BYTES:
                message = await receive()
                read += len(message.get("body", b""))
                more = message.get("more_body", False)
    except TimeoutError:
        return


def _route(scope: Scope) -> str:
    """The route's pattern as a metric label; whatever else is asked for is one label, or the labels would have no end."""
    return HOT_PATH if scope["path"] == HOT_PATH else getattr(scope.get("route"), "path", "other")
