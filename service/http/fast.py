"""The door: one plain ASGI callable in front of FastAPI. It answers the hot routes itself and sends the rest on.

FastAPI's routing, dependencies and pydantic cost about 180 microseconds a request, as much as the model; a middleware
by function costs 30 % of the throughput. So neither stands before the hot route. What holds for every request is here:
the request id, the limit on bodies, and that every error is a problem document.
"""

import asyncio
import json
import logging
import math
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import pydantic

from service.access.keys import Role
from service.errors import (
    BodyTooLarge,
    BodyTooSlow,
    FieldError,
    InvalidRequest,
    ServiceError,
    UnsupportedMediaType,
)
from service.http.answers import encode_answer
from service.http.gate import Gate
from service.http.problems import MEDIA_TYPE, encode_bug, encode_error, encode_problem, field_errors, headers_of
from service.http.schemas import RecommendBatchBody, RecommendBody
from service.identifiers import new_uuid7
from service.logs import request_id as logged_request_id
from service.metrics import Metrics
from service.recommend import Recommender, RecommendRequest
from service.recommendation import Recommendation

if TYPE_CHECKING:
    from service.events.intake import Intake
    from service.models.models import Models

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
Headers = tuple[tuple[bytes, bytes], ...]
Answer = tuple[int, bytes, Headers]  # status, body, more headers
# The request, its body, and on the clock of time.monotonic: when it began, its deadline. What the lifespan opened is scope["state"].
Handler = Callable[[Scope, bytes, float, float], Awaitable[Answer]]
Body = TypeVar("Body")

log = logging.getLogger(__name__)

BODY_TIMEOUT_S = 10.0
# A client that is refused while it still sends sees a broken connection, not the 413: so read on, within reason.
DRAIN_BYTES = 16 * 2**20
DRAIN_TIMEOUT_S = 2.0
# Most answers are ready sooner; watching whether the client is still there costs a task.
WATCH_AFTER_S = 0.005
ROLES: dict[str, Role] = {"/recommend": "read", "/recommend/batch": "read", "/events": "write"}
MAX_BATCH = 256
MAX_EVENTS = 1000

_JSON: Headers = ((b"content-type", b"application/json"),)
_PROBLEM: Headers = ((b"content-type", MEDIA_TYPE.encode()),)
_CLOSE = (b"connection", b"close")
_SERVER_TIMING = b"history;dur=%.3f, queue;dur=%.3f, inference;dur=%.3f, rest;dur=%.3f"
TIMEOUT_HEADER = b"x-request-timeout-ms"
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_REQUEST_ID = re.compile(rb"[\x20-\x7e]{1,128}")


class RecommendBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of /recommend/batch."""

    requests: Annotated[list[RecommendRequest], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class EventBatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of /events; what is in each event is looked at one by one, so that one bad event does not refuse all."""

    events: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=MAX_EVENTS)]


class ClientLeft(Exception):  # noqa: N818 (no error of the service: there is nobody to answer)
    """The client closed the connection before its request was complete."""


class Door:
    """The whole service as one ASGI application.

    draining: the process is about to end; answers ask clients to come back on another connection.
    """

    draining = False

    def __init__(self, api: App, gate: Gate, metrics: Metrics, body_limit_bytes: int, request_timeout_s: float) -> None:
        self.api, self._gate = api, gate
        self._metrics = metrics
        self._body_limit_bytes = body_limit_bytes
        self._request_timeout_s = request_timeout_s
        handlers = (self._recommend, self._recommend_all, self._take_events)
        self._hot: dict[str, Handler] = dict(zip(ROLES, handlers, strict=True))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the lifespan."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        scope["request_id"] = _request_id(scope)
        logged_request_id.set(scope["request_id"])
        handler = self._hot.get(scope["path"]) if scope["method"] == "POST" else None
        if handler is not None:
            await self._answer(handler, scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def _answer(self, handler: Handler, scope: Scope, receive: Receive, send: Send) -> None:
        """One hot request: the body, the handler, its answer or a problem document."""
        start = time.monotonic()
        try:
            deadline = start + min(self._request_timeout_s, _timeout_s(scope))
            self._gate.check(scope, ROLES[scope["path"]])
            _check_media_type(scope)
            body = await self._read_body(scope, receive)
            with ClientWatch(receive):
                status, answer, headers = await handler(scope, body, start, deadline)
        except ClientLeft:
            self._metrics.abandoned()
        except ServiceError as error:
            await self._refuse(scope, send, error)
        except Exception:  # our bug, not a condition: 500 with the request id, and the traceback in the log
            log.exception("bug")
            await self._respond(scope, send, 500, encode_bug(scope["request_id"]), _PROBLEM)
        else:
            await self._respond(scope, send, status, answer, (*_JSON, *headers))

    async def _recommend(self, scope: Scope, body: bytes, start: float, deadline: float) -> Answer:
        recommender: Recommender = scope["state"]["recommender"]
        answer = await recommender.recommend(decode_request(body), deadline)
        encoded = encode_answer(answer)
        return 200, encoded, self._timed(scope, [answer], start)

    async def _recommend_all(self, scope: Scope, body: bytes, start: float, deadline: float) -> Answer:
        recommender: Recommender = scope["state"]["recommender"]
        requests = decode_batch(body).requests
        answers = await recommender.recommend_all(requests, deadline)
        encoded = b'{"results":[%b]}' % b",".join(map(encode_answer, answers))
        return 200, encoded, self._timed(scope, answers, start)

    def _timed(self, scope: Scope, answers: Sequence[Recommendation], start: float) -> Headers:
        """Server-Timing of one call, also left in the scope for its trace; of several answers, the slowest of each stage."""
        total_s = time.monotonic() - start
        history_s = queue_s = inference_s = 0.0
        for answer in answers:
            spent = answer.timing
            waited_s = spent.history_s + spent.queue_s + spent.inference_s
            self._metrics.answered(answer.source, answer.catalog.model_version, total_s, max(0.0, total_s - waited_s))
            history_s = max(history_s, spent.history_s)
            queue_s = max(queue_s, spent.queue_s)
            inference_s = max(inference_s, spent.inference_s)
        scope["answered"] = answers, (history_s, queue_s, inference_s)
        rest_s = max(0.0, total_s - history_s - queue_s - inference_s)
        stages_ms = (1000 * history_s, 1000 * queue_s, 1000 * inference_s, 1000 * rest_s)
        return ((b"server-timing", _SERVER_TIMING % stages_ms),)

    async def _take_events(self, scope: Scope, body: bytes, _start: float, _deadline: float) -> Answer:
        models: Models = scope["state"]["models"]
        intake: Intake = scope["state"]["intake"]
        taken = await intake.take(decode_events(body).events, models.serving.catalog.domain_number)
        for outcome, count in (
            ("accepted", taken.accepted),
            ("duplicate", taken.duplicates),
            ("rejected", len(taken.rejected)),
        ):
            self._metrics.events(outcome, count)
        return 202, msgspec.json.encode(taken), ()

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_on(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", scope["request_id"].encode())]
                if self.draining:
                    message["headers"].append(_CLOSE)
                self._metrics.response(_route(scope), message["status"])
            await send(message)

        try:
            if self._gate.hides(scope):
                await self._respond(scope, send, 404, encode_problem(404, "Not Found", scope["request_id"]), _PROBLEM)
                return
            if _content_length(scope) > self._body_limit_bytes:
                await _drain(receive)
                raise BodyTooLarge(self._body_limit_bytes)
            if _header(scope, b"transfer-encoding") is not None:  # how long the body will be is not known
                receive = _replayed(await self._read_body(scope, receive), receive)
            await self.api(scope, receive, send_on)
        except ClientLeft:
            self._metrics.abandoned()
        except ServiceError as error:
            await self._refuse(scope, send, error)
        except Exception:  # our bug, not a condition: 500 with the request id, and the traceback in the log
            log.exception("bug")
            if not started:
                await self._respond(scope, send, 500, encode_bug(scope["request_id"]), _PROBLEM)

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self._body_limit_bytes
        if _content_length(scope) > limit:
            await _drain(receive)
            raise BodyTooLarge(limit)
        until = time.monotonic() + BODY_TIMEOUT_S
        message = await _receive(receive, until)
        body: bytes = message.get("body", b"")
        while message.get("more_body"):
            message = await _receive(receive, until)
            body += message.get("body", b"")
            if len(body) > limit:
                await _drain(receive)
                raise BodyTooLarge(limit)
        if len(body) > limit:
            raise BodyTooLarge(limit)
        return body

    async def _refuse(self, scope: Scope, send: Send, error: ServiceError) -> None:
        status, body = encode_error(error, scope["request_id"])
        await self._respond(scope, send, status, body, (*_PROBLEM, *headers_of(error)))

    async def _respond(self, scope: Scope, send: Send, status: int, body: bytes, headers: Headers) -> None:
        self._metrics.response(_route(scope), status)
        own = [(b"content-length", b"%d" % len(body)), (b"x-request-id", scope["request_id"].encode())]
        if self.draining:
            own.append(_CLOSE)
        await send({"type": "http.response.start", "status": status, "headers": [*headers, *own]})
        await send({"type": "http.response.body", "body": body})


class ClientWatch:
    """Ends the work of a request whose client has left, by ClientLeft, so that nothing is computed for nobody."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None
        self._has_left = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._begin)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        if self._has_left and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise ClientLeft

    def _begin(self) -> None:
        self._watch = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._has_left = True
        self._task.cancel()


def decode_request(body: bytes) -> RecommendRequest:
    """The body of /recommend, checked in form.

    Raises:
        InvalidRequest: names every wrong field.
    """
    return _decode(body, _decode_request, RecommendBody)


def decode_batch(body: bytes) -> RecommendBatch:
    """The body of /recommend/batch; raises as `decode_request`."""
    return _decode(body, _decode_batch, RecommendBatchBody)


def decode_events(body: bytes) -> EventBatch:
    """The body of /events; raises as `decode_request`, but says nothing of what is in an event."""
    try:
        return _decode_events(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if _HALF_CHARACTER.search(body) and (found := _events_one_by_one(body)) is not None:
            return found
        raise InvalidRequest([FieldError("", str(error))]) from None


def _events_one_by_one(body: bytes) -> EventBatch | None:
    """The same where a text holds half a character, as cutting it in JavaScript leaves it: that costs its event alone."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    events = found.get("events") if isinstance(found, dict) and len(found) == 1 else None
    if not isinstance(events, list) or len(events) > MAX_EVENTS:
        return None
    return EventBatch([msgspec.Raw(json.dumps(event).encode()) for event in events])


_decode_request = msgspec.json.Decoder(RecommendRequest).decode
_decode_batch = msgspec.json.Decoder(RecommendBatch).decode
_decode_events = msgspec.json.Decoder(EventBatch).decode


def _decode(body: bytes, decode: Callable[[bytes], Body], shown: type[pydantic.BaseModel]) -> Body:
    try:
        return decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        # The slow way, which finds all errors and their places, is only for who made one.
        try:
            shown.model_validate_json(body)
        except pydantic.ValidationError as refused:
            raise InvalidRequest(field_errors(refused.errors(include_url=False, include_input=False))) from None
        raise InvalidRequest([FieldError("", str(error))]) from None


def _timeout_s(scope: Scope) -> float:
    """What the caller gives it, in seconds.

    Raises:
        InvalidRequest: not a number of milliseconds.
    """
    given = _header(scope, TIMEOUT_HEADER)
    if given is None:
        return math.inf
    if not given.isdigit() or not int(given[:9]):
        raise InvalidRequest([FieldError("X-Request-Timeout-Ms", "not a whole number of milliseconds above 0")])
    return int(given[:9]) / 1000


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


async def _receive(receive: Receive, until: float) -> Message:
    """The next part of a body, which has to be there by then (on the clock of time.monotonic)."""
    try:
        async with asyncio.timeout(until - time.monotonic()):
            message = await receive()
    except TimeoutError:
        raise BodyTooSlow from None
    if message["type"] == "http.disconnect":
        raise ClientLeft
    return message


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What receives a body that was read before, and then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_on() -> Message:
        return waiting.pop() if waiting else await receive()

    return receive_on


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


def route_of(scope: Scope) -> str | None:
    """The route's pattern, without ids; None before FastAPI has found it, and where there is none."""
    return scope["path"] if scope["path"] in ROLES else getattr(scope.get("route"), "path", None)


def _route(scope: Scope) -> str:
    """The metric's label; whatever else is asked for is one label, or the labels would have no end."""
    return route_of(scope) or "other"
