"""What is asked of the service: the objects a caller makes, and each method of the client as one `Call`. No I/O."""

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypedDict, TypeVar
from urllib.parse import quote, urlencode

from syncrec.client.answers import (
    Activated,
    Erased,
    History,
    ItemSet,
    Models,
    Recommendation,
    Recommendations,
    Similar,
    Taken,
)

T = TypeVar("T")


@dataclass(frozen=True)
class HistoryEvent:
    """One interaction of a history that comes with a request.

    timestamp: seconds since 1970, ISO 8601, or a datetime with a zone; None: the order given counts, oldest first.
    """

    domain: str
    item_id: str
    timestamp: float | str | datetime | None = None


class RecommendOptions(TypedDict, total=False):
    """What may be said beside the user.

    domains: left out: all. k: items per domain, 1 to 100, 10 if left out. exclude_seen: leave items of the history out, the
    default. exclude_item_ids: in every domain. history: used in place of the stored one; nothing is stored. candidates:
    per domain, only these are ranked. categories: only items of these.
    """

    domains: Sequence[str] | None
    k: int | None
    exclude_seen: bool | None
    exclude_item_ids: Sequence[str] | None
    history: Sequence[HistoryEvent] | None
    candidates: Mapping[str, Sequence[str]] | None
    categories: Sequence[str] | None


@dataclass(frozen=True)
class Request:
    """One request of a batch; what is None is left to the service's defaults. The options are those of `RecommendOptions`."""

    user_id: str
    domains: Sequence[str] | None = None
    k: int | None = None
    exclude_seen: bool | None = None
    exclude_item_ids: Sequence[str] | None = None
    history: Sequence[HistoryEvent] | None = None
    candidates: Mapping[str, Sequence[str]] | None = None
    categories: Sequence[str] | None = None


@dataclass(frozen=True)
class Event:
    """Something that happened.

    event_id: made with the event, before it is sent for the first time: sent again, the same object counts once.
    timestamp: seconds since 1970, ISO 8601, or a datetime with a zone; now if left out.
    recommendation_id, rank: of the answer that showed the item, where one did.
    """

    user_id: str
    domain: str
    item_id: str
    event: Literal["interaction", "impression", "click"] = "interaction"
    timestamp: float | str | datetime = field(default_factory=time.time)
    recommendation_id: str | None = None
    rank: int | None = None
    event_id: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True)
class Call(Generic[T]):
    """One method of the client, ready to be sent.

    path: quoted, with its query. body: JSON; None: none. repeatable: a second time does no harm. answer: what the answer
    is read as; None: only its status counts.
    """

    method: str
    path: str
    answer: type[T]
    body: Mapping[str, object] | None = None
    repeatable: bool = True


def recommend(request: Request) -> Call[Recommendation]:
    """Sending it again is harmless: it stores nothing."""
    return Call("POST", "/recommend", Recommendation, as_json(request))


def recommend_batch(requests: Iterable[Request]) -> Call[Recommendations]:
    """Up to 256 requests."""
    return Call("POST", "/recommend/batch", Recommendations, {"requests": [as_json(one) for one in requests]})


def send_events(events: Iterable[Event]) -> Call[Taken]:
    """Up to 1,000 events. Sending them again is harmless: each counts once by its `event_id`."""
    return Call("POST", "/events", Taken, {"events": [as_json(one) for one in events]})


def similar(domain: str, item_id: str, k: int | None, domains: Sequence[str] | None) -> Call[Similar]:
    """The items nearest to one."""
    given = {"k": [k] if k is not None else [], "domains": domains or []}
    query = urlencode(given, doseq=True)
    return Call("GET", _path("items", domain, item_id, "similar") + (f"?{query}" if query else ""), Similar)


def history(user_id: str) -> Call[History]:
    """What is stored of a user's past."""
    return Call("GET", _path("users", user_id, "history"), History)


def erase(user_id: str) -> Call[Erased]:
    """Everything held on the user goes; a second time there is nothing left, which is the same."""
    return Call("DELETE", _path("users", user_id), Erased)


def put_item(domain: str, item_id: str, available: bool, categories: Sequence[str] | None) -> Call[ItemSet]:
    """The whole state of an item. categories: None: those of the bundle."""
    body = {"available": available, "categories": None if categories is None else list(categories)}
    return Call("PUT", _path("items", domain, item_id), ItemSet, body)


def models() -> Call[Models]:
    """The bundles that the service has."""
    return Call("GET", "/models", Models)


def activate(model_version: str) -> Call[Activated]:
    """Never sent again by itself: what happened between the two attempts may have been somebody's roll-back."""
    return Call("POST", _path("models", model_version, "activate"), Activated, repeatable=False)


def roll_back() -> Call[Activated]:
    """Never sent again by itself: twice would go back two models."""
    return Call("POST", "/models/rollback", Activated, repeatable=False)


def ready() -> Call[None]:
    """Asked once: whoever waits for a service asks again anyway."""
    return Call("GET", "/readyz", type(None), repeatable=False)


def as_json(asked: Request | Event | HistoryEvent) -> dict[str, object]:
    """The contract's JSON of it, without the fields that are None.

    Raises:
        ValueError: a datetime without a zone, which could be any of 24 hours.
    """
    return {name: _plain(value) for name, value in _without_none(vars(asked)).items()}


def encode(body: Mapping[str, object]) -> bytes:
    """A body as it is sent.

    Raises:
        ValueError: NaN, infinity, or half of a character, which JSON cannot carry.
    """
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _plain(value: Any) -> object:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone; give one, such as datetime.now(UTC)")
        return value.timestamp()
    if isinstance(value, HistoryEvent):
        return as_json(value)
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value


def _without_none(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _path(*parts: str) -> str:
    return "".join(f"/{_quoted(part)}" for part in parts)


def _quoted(part: str) -> str:
    # `..` as an id would otherwise climb to another route.
    return part.replace(".", "%2E") if part in {".", ".."} else quote(part, safe="")
