"""Client and AsyncClient: the service over HTTP, with one method per route. All rules are in `asking` and `attempts`."""

# ruff: noqa: ASYNC109 (a time that pauses and retries keep to, and that the service is told, is no `asyncio.timeout` around)

import asyncio
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from syncrec.client import asking
from syncrec.client.answers import Activated, Erased, History, ItemSet, Models, Recommendation, Similar, Taken
from syncrec.client.asking import Call, Event, RecommendOptions, Request
from syncrec.client.attempts import Attempt, Attempts, Broken, Reply, RetryBudget
from syncrec.client.errors import NotReachable, TimedOut, Unavailable

T = TypeVar("T")

NOT_READY = (Unavailable, NotReachable, TimedOut)


class _Options:
    """What both clients are told, and what they hold beside their connections."""

    def __init__(self, base_url: str, api_key: str | None, timeout: float, retries: int) -> None:
        self._timeout_s, self._retries, self._budget = timeout, retries, RetryBudget()
        # Redirects are not followed: the key would go with them.
        self._http_options: dict[str, Any] = {
            "base_url": base_url,
            "headers": {"authorization": f"Bearer {api_key}"} if api_key else {},
        }

    def _attempts(self, call: Call[T], timeout: float | None, request_id: str | None) -> Attempts[T]:
        return Attempts(
            call,
            timeout_s=self._timeout_s if timeout is None else timeout,
            retries=self._retries,
            budget=self._budget,
            request_id=request_id,
        )


class Client(_Options):
    """The service, for code that waits. One object serves many threads; close it, or use it with `with`."""

    def __init__(self, base_url: str, *, api_key: str | None = None, timeout: float = 2.0, retries: int = 2) -> None:
        """Open no connection yet.

        Args:
            base_url: such as `http://recommend.internal:8000`.
            api_key: sent as `Authorization: Bearer`.
            timeout: seconds for a whole call, with all its attempts and pauses, unless the call says another.
            retries: how often a call that may be repeated is sent again at most.
        """
        super().__init__(base_url, api_key, timeout, retries)
        self._http = httpx.Client(**self._http_options)

    def recommend(
        self,
        user_id: str,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Recommendation:
        """The best items per domain for one user; `RecommendOptions` says what else can be asked."""
        return self._send(asking.recommend(Request(user_id, **options)), timeout, request_id)

    def recommend_batch(
        self, requests: Iterable[Request], *, timeout: float | None = None, request_id: str | None = None
    ) -> tuple[Recommendation, ...]:
        """Answers to up to 256 requests, in their order."""
        return self._send(asking.recommend_batch(requests), timeout, request_id).results

    def send_events(
        self, events: Iterable[Event], *, timeout: float | None = None, request_id: str | None = None
    ) -> Taken:
        """Tell up to 1,000 events. Once this returns, those accepted are stored."""
        return self._send(asking.send_events(events), timeout, request_id)

    def similar(
        self,
        domain: str,
        item_id: str,
        k: int | None = None,
        domains: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Similar:
        """The `k` items nearest to one, in each of the domains."""
        return self._send(asking.similar(domain, item_id, k, domains), timeout, request_id)

    def history(self, user_id: str, *, timeout: float | None = None, request_id: str | None = None) -> History:
        """What is stored of a user's past."""
        return self._send(asking.history(user_id), timeout, request_id)

    def erase(self, user_id: str, *, timeout: float | None = None, request_id: str | None = None) -> Erased:
        """Erase everything held on a user. Takes an admin key."""
        return self._send(asking.erase(user_id), timeout, request_id)

    def put_item(
        self,
        domain: str,
        item_id: str,
        *,
        available: bool = True,
        categories: Sequence[str] | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> ItemSet:
        """Set an item's whole state: whether it is on sale, and its categories (None: the bundle's). Takes an admin key."""
        return self._send(asking.put_item(domain, item_id, available, categories), timeout, request_id)

    def models(self, *, timeout: float | None = None, request_id: str | None = None) -> Models:
        """The bundles that the service has, and which one answers. Takes an admin key."""
        return self._send(asking.models(), timeout, request_id)

    def activate(self, version: str, *, timeout: float | None = None, request_id: str | None = None) -> Activated:
        """Let another bundle answer. Never retried. Takes an admin key."""
        return self._send(asking.activate(version), timeout, request_id)

    def roll_back(self, *, timeout: float | None = None, request_id: str | None = None) -> Activated:
        """Let the bundle from before the last activation answer again. Never retried. Takes an admin key."""
        return self._send(asking.roll_back(), timeout, request_id)

    def is_ready(self, *, timeout: float | None = None) -> bool:
        """Whether the service can answer; False too if it cannot be reached."""
        try:
            self._send(asking.ready(), timeout, None)
        except NOT_READY:
            return False
        return True

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call[T], timeout: float | None, request_id: str | None) -> T:
        attempts = self._attempts(call, timeout, request_id)
        while True:
            outcome = self._try(attempts.start(), attempts)
            pause_s = attempts.after(outcome)
            if pause_s is None:
                assert isinstance(outcome, Reply)
                return attempts.answer(outcome)
            time.sleep(pause_s)

    def _try(self, attempt: Attempt, attempts: Attempts[T]) -> Reply | Broken:
        try:
            with self._http.stream(**_arguments(attempt)) as response:
                content = b""
                # httpx limits each read, so a body that trickles would have no end.
                for piece in response.iter_bytes():
                    content += piece
                    if attempts.is_late():
                        return Broken("the answer did not end", timed_out=True)
                return _reply(response, content)
        except httpx.RequestError as error:
            return _broken(error)


class AsyncClient(_Options):
    """The same service, for asyncio. Close it with `aclose`, or use it with `async with`."""

    def __init__(self, base_url: str, *, api_key: str | None = None, timeout: float = 2.0, retries: int = 2) -> None:
        """The arguments are those of `Client`."""
        super().__init__(base_url, api_key, timeout, retries)
        self._http = httpx.AsyncClient(**self._http_options)

    async def recommend(
        self,
        user_id: str,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
        **options: Unpack[RecommendOptions],
    ) -> Recommendation:
        """The best items per domain for one user; `RecommendOptions` says what else can be asked."""
        return await self._send(asking.recommend(Request(user_id, **options)), timeout, request_id)

    async def recommend_batch(
        self, requests: Iterable[Request], *, timeout: float | None = None, request_id: str | None = None
    ) -> tuple[Recommendation, ...]:
        """Answers to up to 256 requests, in their order."""
        return (await self._send(asking.recommend_batch(requests), timeout, request_id)).results

    async def send_events(
        self, events: Iterable[Event], *, timeout: float | None = None, request_id: str | None = None
    ) -> Taken:
        """Tell up to 1,000 events. Once this returns, those accepted are stored."""
        return await self._send(asking.send_events(events), timeout, request_id)

    async def similar(
        self,
        domain: str,
        item_id: str,
        k: int | None = None,
        domains: Sequence[str] | None = None,
        *,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> Similar:
        """The `k` items nearest to one, in each of the domains."""
        return await self._send(asking.similar(domain, item_id, k, domains), timeout, request_id)

    async def history(self, user_id: str, *, timeout: float | None = None, request_id: str | None = None) -> History:
        """What is stored of a user's past."""
        return await self._send(asking.history(user_id), timeout, request_id)

    async def erase(self, user_id: str, *, timeout: float | None = None, request_id: str | None = None) -> Erased:
        """Erase everything held on a user. Takes an admin key."""
        return await self._send(asking.erase(user_id), timeout, request_id)

    async def put_item(
        self,
        domain: str,
        item_id: str,
        *,
        available: bool = True,
        categories: Sequence[str] | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
    ) -> ItemSet:
        """Set an item's whole state: whether it is on sale, and its categories (None: the bundle's). Takes an admin key."""
        return await self._send(asking.put_item(domain, item_id, available, categories), timeout, request_id)

    async def models(self, *, timeout: float | None = None, request_id: str | None = None) -> Models:
        """The bundles that the service has, and which one answers. Takes an admin key."""
        return await self._send(asking.models(), timeout, request_id)

    async def activate(self, version: str, *, timeout: float | None = None, request_id: str | None = None) -> Activated:
        """Let another bundle answer. Never retried. Takes an admin key."""
        return await self._send(asking.activate(version), timeout, request_id)

    async def roll_back(self, *, timeout: float | None = None, request_id: str | None = None) -> Activated:
        """Let the bundle from before the last activation answer again. Never retried. Takes an admin key."""
        return await self._send(asking.roll_back(), timeout, request_id)

    async def is_ready(self, *, timeout: float | None = None) -> bool:
        """Whether the service can answer; False too if it cannot be reached."""
        try:
            await self._send(asking.ready(), timeout, None)
        except NOT_READY:
            return False
        return True

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _send(self, call: Call[T], timeout: float | None, request_id: str | None) -> T:
        attempts = self._attempts(call, timeout, request_id)
        while True:
            outcome = await self._try(attempts.start())
            pause_s = attempts.after(outcome)
            if pause_s is None:
                assert isinstance(outcome, Reply)
                return attempts.answer(outcome)
            await asyncio.sleep(pause_s)

    async def _try(self, attempt: Attempt) -> Reply | Broken:
        try:
            async with asyncio.timeout(attempt.timeout_s):
                response = await self._http.request(**_arguments(attempt))
        except TimeoutError:
            return Broken("no answer", timed_out=True)
        except httpx.RequestError as error:
            return _broken(error)
        return _reply(response, response.content)


def _arguments(attempt: Attempt) -> dict[str, Any]:
    return {
        "method": attempt.method,
        "url": attempt.path,
        "headers": attempt.headers,
        "content": attempt.content,
        "timeout": attempt.timeout_s,
    }


def _reply(response: httpx.Response, content: bytes) -> Reply:
    return Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)


def _broken(error: httpx.RequestError) -> Broken:
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        raise error  # what we were told to send cannot be sent: no condition of the network
    return Broken(str(error) or type(error).__name__, isinstance(error, httpx.TimeoutException))
