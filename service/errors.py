"""What can go wrong with one request, told apart by what the caller or operator can do about it.

ServiceError
├── InvalidRequest            the request cannot be meant; `errors` names the fields
│   ├── UnknownDomain         a domain that the model does not have; carries the known ones
│   ├── CategoriesUnknown     categories were asked for and the bundle has none
│   └── SimilarUnknown        similar items were asked for and the bundle knows of none
├── BodyTooLarge              the body is larger than the limit
├── BodyTooSlow               the body did not arrive in time
├── UnsupportedMediaType      the body is declared to be something else than JSON
├── Unauthenticated           no API key, or one that is not known
├── Forbidden                 the key does not have the role that this needs
├── RateLimited               the key has been used more often than its rate allows
├── QueueFull                 more requests wait for the model than the limit allows
├── DeadlineExceeded          the answer was not there in time
├── UnknownItem               an item that the model does not have
├── UnknownModel              a bundle that the models folder does not have
├── BundleRefused             a bundle that is damaged, or does not answer as it did at export
├── UnknownExperiment         there is no experiment of this key
├── ChangeRefused             a change that an experiment's state, or its layer, does not allow
├── NothingToRollBack         no model was active before
├── StoreUnavailable          Redis did not take a change, or did not say
└── PartFailed                a part that a request can do without; the answer is by popularity then
    ├── HistoryUnavailable    Redis is away, slow, or holds something that is no history
    └── ModelFailed           ONNX Runtime raised, or its scores are not numbers

Each is named after what happened. Nothing here knows HTTP; `http/problems.py` gives each a status. Failures at start are `formats.errors.WorkFailed`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class FieldError:
    """One thing that is wrong with a request: where (`history[0].item_id`; empty = the body as a whole) and what."""

    field: str
    detail: str


class ServiceError(Exception):
    """A request that got no answer, or not the one it could have had."""


class InvalidRequest(ServiceError):  # noqa: N818
    """The request cannot be meant."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(f"{e.field}: {e.detail}" if e.field else e.detail for e in self.errors))


class UnknownDomain(InvalidRequest):
    """A domain that the model does not have."""

    def __init__(self, domain: str, known: Sequence[str], field: str) -> None:
        self.domain, self.known = domain, tuple(known)
        super().__init__([FieldError(field, f"unknown domain '{domain}'; known: {', '.join(known)}")])


class CategoriesUnknown(InvalidRequest):
    """Categories were asked for, and the bundle has none."""

    def __init__(self) -> None:
        super().__init__([FieldError("categories", "the served bundle has no categories to filter by")])


class SimilarUnknown(InvalidRequest):
    """Similar items were asked for, and the bundle knows of none."""

    def __init__(self) -> None:
        super().__init__([FieldError("", "the served bundle does not say which items are similar")])


class BodyTooLarge(ServiceError):  # noqa: N818
    """The body is larger than the limit."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the body is larger than {limit_bytes} bytes")


class BodyTooSlow(ServiceError):  # noqa: N818
    """The body did not arrive in time."""

    def __init__(self) -> None:
        super().__init__("the body did not arrive in time")


class UnsupportedMediaType(ServiceError):  # noqa: N818
    """The body is declared to be something else than JSON."""

    def __init__(self) -> None:
        super().__init__("the body must be sent as Content-Type: application/json")


class Unauthenticated(ServiceError):  # noqa: N818
    """No API key, or one that is not known."""


class Forbidden(ServiceError):  # noqa: N818
    """The key does not have the role that this needs."""


class RateLimited(ServiceError):  # noqa: N818
    """The key has been used more often than its rate allows. `retry_after_s`: whole seconds, at least 1."""

    def __init__(self, retry_after_s: int) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"this key asks too often; try again in {retry_after_s} s")


class QueueFull(ServiceError):  # noqa: N818
    """More requests wait for the model than the limit allows."""

    retry_after_s = 1

    def __init__(self) -> None:
        super().__init__("too many requests are waiting; try again shortly")


class DeadlineExceeded(ServiceError):  # noqa: N818
    """The answer was not there in time."""

    def __init__(self) -> None:
        super().__init__("the answer was not ready within the time for one request")


class UnknownItem(ServiceError):  # noqa: N818
    """An item that the model does not have."""

    def __init__(self, domain: str, item_id: str) -> None:
        super().__init__(f"the served model has no item '{item_id}' in '{domain}'")


class UnknownModel(ServiceError):  # noqa: N818
    """A bundle that the models folder does not have."""

    def __init__(self, version: str) -> None:
        super().__init__(f"the models folder has no bundle '{version}'")


class BundleRefused(ServiceError):  # noqa: N818
    """A bundle that is damaged, cannot be loaded, or does not answer as it did at export; `reason` says which."""

    def __init__(self, version: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"bundle '{version}' is refused: {reason}")


class UnknownExperiment(ServiceError):  # noqa: N818
    """There is no experiment of this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"there is no experiment '{key}'")


class ChangeRefused(ServiceError):  # noqa: N818
    """A change that an experiment's state, or its layer, does not allow; the text says why."""


class NothingToRollBack(ServiceError):  # noqa: N818
    """No model was active before, or another call was faster."""

    def __init__(self) -> None:
        super().__init__("no other model was active before, or it has just been changed; see GET /models")


class StoreUnavailable(ServiceError):  # noqa: N818
    """Redis did not take a change, or did not say. `reason` is short."""

    retry_after_s = 1

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis: {reason}; it is safe to try again")


class PartFailed(ServiceError):  # noqa: N818
    """A part that a request can do without."""


class HistoryUnavailable(PartFailed):
    """Redis is away, slow, or holds something that is no history. `reason` is short and without user data."""

    retry_after_s = 1

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"history store: {reason}")


class ModelFailed(PartFailed):
    """ONNX Runtime raised, or its scores are not numbers."""
