"""One call from its first attempt to its answer or error: what is sent, when it is sent again, what is raised. No I/O.

A client asks `start` what to send, tells `after` what came of it, and sleeps for as long as `after` says.
"""

import json
import random
import re
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Generic, TypeVar

from syncrec.client.asking import Call, encode
from syncrec.client.errors import ClientError, NotReachable, TimedOut, UnreadableAnswer, refusal
from syncrec.client.reading import NotAsPromised, read

T = TypeVar("T")

TRY_AGAIN = frozenset({429, 502, 503, 504})
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
# Visible ASCII and spaces: what the service takes as an id, and what cannot end a header.
_HEADER_TEXT = re.compile(r"[\x20-\x7e]{1,128}")


@dataclass(frozen=True)
class Attempt:
    """What to send now. path: with its query. timeout_s: what is left of the call's time."""

    method: str
    path: str
    headers: Mapping[str, str]
    content: bytes | None
    timeout_s: float


@dataclass(frozen=True)
class Reply:
    """What came back. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True)
class Broken:
    """No reply. timed_out: the attempt ran into its time; otherwise the connection was refused or broke."""

    reason: str
    timed_out: bool = False


class RetryBudget:
    """How much a client may ask beyond what it was asked: a bucket of 10 retries that every call fills by a tenth.

    While a service is down each of many callers would else ask it three times, which is what keeps it down.
    """

    FULL = 10.0
    PER_CALL = 0.1

    def __init__(self) -> None:
        self._retries = self.FULL
        self._lock = threading.Lock()

    def count_call(self) -> None:
        """A call is made."""
        with self._lock:
            self._retries = min(self.FULL, self._retries + self.PER_CALL)

    def spend(self) -> bool:
        """Take one retry; False: none is left."""
        with self._lock:
            if self._retries < 1:
                return False
            self._retries -= 1
            return True


class Attempts(Generic[T]):
    """The attempts of one call."""

    def __init__(
        self,
        call: Call[T],
        *,
        timeout_s: float,
        retries: int,
        budget: RetryBudget,
        request_id: str | None = None,
    ) -> None:
        """Start the call's clock.

        Args:
            call: what is asked.
            timeout_s: for all attempts and the pauses between them.
            retries: how often it may be sent again.
            budget: of the client.
            request_id: made, if it is None.

        Raises:
            ValueError: an id that is no header, a body that is no JSON.
        """
        if request_id is not None and not _HEADER_TEXT.fullmatch(request_id):
            raise ValueError("request_id: 1 to 128 characters of printable ASCII")
        self._call, self._retries_left, self._budget = call, retries if call.repeatable else 0, budget
        self.request_id = request_id or str(uuid.uuid4())
        self._content = None if call.body is None else encode(call.body)
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._sent = 0
        budget.count_call()

    def start(self) -> Attempt:
        """The next attempt.

        Raises:
            TimedOut: no time is left for one.
        """
        left_s = self._left_s()
        if left_s <= 0:
            raise self._timed_out()
        self._sent += 1
        headers = {"x-request-id": self.request_id, "x-request-timeout-ms": str(max(1, int(left_s * 1000)))}
        if self._content is not None:
            headers["content-type"] = "application/json"
        return Attempt(self._call.method, self._call.path, headers, self._content, left_s)

    def is_late(self) -> bool:
        """Whether the call's time is over: to be asked while an answer comes in pieces."""
        return self._left_s() <= 0

    def after(self, outcome: Reply | Broken) -> float | None:
        """What the attempt came to.

        Returns:
            Seconds to wait before the next attempt; None: the answer has come.

        Raises:
            ClientError: this was the last attempt, and it failed.
        """
        if isinstance(outcome, Reply) and 200 <= outcome.status < 300:
            return None
        asked_s = _retry_after_s(outcome.headers) if isinstance(outcome, Reply) else None
        may_help = isinstance(outcome, Broken) or outcome.status in TRY_AGAIN
        pause_s = (asked_s or 0) + self._jitter_s()
        if may_help and self._retries_left > 0 and pause_s < self._left_s() and self._budget.spend():
            self._retries_left -= 1
            return pause_s
        raise self._error(outcome, asked_s)

    def answer(self, reply: Reply) -> T:
        """The answer as the object that the call promises.

        Raises:
            UnreadableAnswer: it is something else.
        """
        if self._call.answer is type(None):
            return None  # T is None then
        try:
            return read(self._call.answer, json.loads(reply.content))
        except NotAsPromised as error:
            raise UnreadableAnswer(str(error), self.request_id, self._sent) from None
        except ValueError:
            raise UnreadableAnswer("the answer is not JSON", self.request_id, self._sent) from None

    def _error(self, outcome: Reply | Broken, retry_after_s: float | None) -> ClientError:
        if isinstance(outcome, Reply):
            return refusal(outcome.status, outcome.content, self.request_id, self._sent, retry_after_s)
        if outcome.timed_out or self.is_late():
            return self._timed_out()
        return NotReachable(outcome.reason, self.request_id, self._sent)

    def _timed_out(self) -> TimedOut:
        return TimedOut(f"no answer within {self._timeout_s:g} s", self.request_id, self._sent)

    def _jitter_s(self) -> float:
        return random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**self._sent))

    def _left_s(self) -> float:
        return self._deadline - time.monotonic()


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date (RFC 9110, 10.2.3); None: not said, or in neither form."""
    given = headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    try:
        return max(0.0, parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
