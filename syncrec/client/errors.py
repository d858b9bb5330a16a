"""What can go wrong with a call, told apart by what the caller can do about it.

ClientError
├── NotReachable         no answer: the connection was refused or broke
├── TimedOut             no answer before the call's deadline
├── UnreadableAnswer     a 2xx answer that is not what the contract says
└── Refused              the service answered with an error
    ├── InvalidRequest   400, 413, 415, 422: the request cannot be meant; `errors` names the fields
    ├── NotAllowed       401, 403: no key, a wrong one, or one of another role
    ├── NotFound         404
    ├── RateLimited      429: too many requests; `retry_after_s` says when to come back, if the service did
    └── Unavailable      502, 503, 504: the service cannot answer now

Every one carries `request_id`, under which the service's log has the call, and `attempts`, how often it was sent.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with a request: where (`history[0].item_id`; empty = the body as a whole) and what."""

    field: str
    detail: str


class ClientError(Exception):
    """A call that got no usable answer."""

    def __init__(self, message: str, request_id: str, attempts: int) -> None:
        self.request_id, self.attempts = request_id, attempts
        super().__init__(f"{message} (request {request_id})")


class NotReachable(ClientError):  # noqa: N818 (named after what happened, like all of these)
    """No answer: the connection was refused or broke."""


class TimedOut(ClientError):  # noqa: N818
    """No answer before the call's deadline."""


class UnreadableAnswer(ClientError):  # noqa: N818
    """A 2xx answer that is not what the contract says."""


class Refused(ClientError):  # noqa: N818
    """The service answered with an error.

    status: of HTTP. type: a name that programs can compare, `urn:syncrec:problem:unknown-domain`. detail: for people.
    errors: what is wrong with which field. retry_after_s: seconds the service asks to wait, if it says so.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        request_id: str,
        attempts: int,
        *,
        kind: str = "about:blank",
        errors: tuple[FieldError, ...] = (),
        retry_after_s: float | None = None,
    ) -> None:
        self.status, self.type, self.detail = status, kind, detail
        self.errors, self.retry_after_s = errors, retry_after_s
        super().__init__(f"{status}: {detail}", request_id, attempts)


class InvalidRequest(Refused):
    """The request cannot be meant."""


class NotAllowed(Refused):
    """No key, a wrong one, or one of another role."""


class NotFound(Refused):
    """There is no such thing."""


class RateLimited(Refused):
    """Too many requests."""


class Unavailable(Refused):
    """The service cannot answer now."""


KIND_OF_STATUS: Mapping[int, type[Refused]] = {
    **dict.fromkeys((400, 413, 415, 422), InvalidRequest),
    **dict.fromkeys((401, 403), NotAllowed),
    404: NotFound,
    429: RateLimited,
    **dict.fromkeys((502, 503, 504), Unavailable),
}


def refusal(status: int, body: bytes, request_id: str, attempts: int, retry_after_s: float | None) -> Refused:
    """The error of an answer that is not 2xx.

    What stands before the service answers errors too, in HTML; then the status says all that is known.
    """
    problem = _problem(body)
    errors = problem.get("errors")
    return KIND_OF_STATUS.get(status, Refused)(
        status,
        str(problem.get("detail") or problem.get("title") or "no problem document came with this status"),
        str(problem.get("request_id") or request_id),
        attempts,
        kind=str(problem.get("type") or "about:blank"),
        errors=tuple(
            FieldError(str(one.get("field", "")), str(one.get("detail", "")))
            for one in (errors if isinstance(errors, list) else [])
            if isinstance(one, dict)
        ),
        retry_after_s=retry_after_s,
    )


def _problem(body: bytes) -> dict[str, object]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
