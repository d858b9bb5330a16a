"""The service from Python: `Client`, `AsyncClient` and `EventBuffer`. Needs httpx; loads nothing else of ours."""

try:
    import httpx as _httpx  # noqa: F401 (so that its absence is one clear line)
except ModuleNotFoundError as error:
    if error.name != "httpx":
        raise
    raise ImportError("syncrec.client needs httpx: pip install 'syncrec[client]'") from None

from syncrec.client.answers import (
    Activated,
    Assignment,
    Erased,
    History,
    Item,
    ItemSet,
    Model,
    Models,
    PastEvent,
    Recommendation,
    Rejected,
    Similar,
    Taken,
)
from syncrec.client.asking import Event, HistoryEvent, RecommendOptions, Request
from syncrec.client.buffer import Dropped, EventBuffer
from syncrec.client.client import AsyncClient, Client
from syncrec.client.errors import (
    ClientError,
    FieldError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    NotReachable,
    RateLimited,
    Refused,
    TimedOut,
    Unavailable,
    UnreadableAnswer,
)

__all__ = [
    "Activated",
    "Assignment",
    "AsyncClient",
    "Client",
    "ClientError",
    "Dropped",
    "Erased",
    "Event",
    "EventBuffer",
    "FieldError",
    "History",
    "HistoryEvent",
    "InvalidRequest",
    "Item",
    "ItemSet",
    "Model",
    "Models",
    "NotAllowed",
    "NotFound",
    "NotReachable",
    "PastEvent",
    "RateLimited",
    "RecommendOptions",
    "Recommendation",
    "Refused",
    "Rejected",
    "Request",
    "Similar",
    "Taken",
    "TimedOut",
    "Unavailable",
    "UnreadableAnswer",
]
