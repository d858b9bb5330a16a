"""The JSON of the contract as pydantic models: what OpenAPI shows, and what names every wrong field of a refused body.

The hot routes decode with `service.recommend.RecommendRequest` instead, which refuses the same bodies ten times faster.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.history.packed import MAX_TIMESTAMP
from service.recommend import (
    MAX_CANDIDATES,
    MAX_CATEGORIES,
    MAX_DOMAINS,
    MAX_EXCLUDED,
    MAX_HISTORY,
    MAX_ID_CHARS,
    MAX_K,
)

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]


class HistoryEventBody(BaseModel):
    """One interaction of a history that comes with the request."""

    model_config = ConfigDict(strict=True, extra="forbid")
    item_id: Id
    domain: Id
    timestamp: (
        Annotated[float, Field(ge=0, le=MAX_TIMESTAMP, allow_inf_nan=False)]
        | Annotated[str, Field(max_length=64)]
        | None
    ) = Field(None, description="Seconds since 1970 or ISO 8601, UTC. Left out: the order given counts, oldest first.")


class RecommendBody(BaseModel):
    """What is asked of `POST /recommend`; only `user_id` is required."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        json_schema_extra={"examples": [{"user_id": "u42", "k": 10}]},
    )
    user_id: Id
    domains: Annotated[list[Id], Field(min_length=1, max_length=MAX_DOMAINS)] | None = Field(
        None, description="Domains to answer in; left out: all."
    )
    k: int = Field(10, ge=1, le=MAX_K, description="Items per domain.")
    exclude_seen: bool = Field(True, description="Whether items of the history are left out.")
    exclude_item_ids: list[Id] = Field([], max_length=MAX_EXCLUDED, description="Items to leave out, in every domain.")
    history: Annotated[list[HistoryEventBody], Field(max_length=MAX_HISTORY)] | None = Field(
        None, description="Used in place of the stored history; nothing is stored."
    )
    candidates: dict[Id, Annotated[list[Id], Field(max_length=MAX_CANDIDATES)]] = Field(
        {}, description="Per domain: only these items may be answered."
    )
    categories: list[Id] = Field(
        [], max_length=MAX_CATEGORIES, description="Only items of these categories may be answered; empty: all."
    )


class RecommendBatchBody(BaseModel):
    """What is asked of `POST /recommend/batch`; all requests are answered by one model."""

    model_config = ConfigDict(strict=True, extra="forbid")
    requests: list[RecommendBody] = Field(min_length=1, max_length=256)


class Item(BaseModel):
    """One recommended item."""

    item_id: str
    score: float
    rank: int = Field(ge=1)
    title: str | None = Field(None, description="Only where the bundle has one.")


class ExperimentAssignment(BaseModel):
    """The experiment that the answer is part of."""

    key: str
    variant: str
    reason: str


class RecommendAnswer(BaseModel):
    """The answer of `POST /recommend`."""

    model_config = ConfigDict(protected_namespaces=())
    recommendation_id: str = Field(description="UUID of version 7.")
    user_id: str
    model_version: str
    source: Literal["model", "popularity", "degraded"] = Field(
        description="popularity: no usable history; degraded: history store or model failed, so by popularity too."
    )
    experiment: ExperimentAssignment | None = Field(
        None, description="The one that decided what answers, else the first."
    )
    experiments: list[ExperimentAssignment] = Field(description="All that the user is in, at most one of each layer.")
    missing_ids: list[str] = Field(description="Ids of the request that the model does not know.")
    domains: dict[str, list[Item]] = Field(description="Best first.")


class RecommendBatchAnswer(BaseModel):
    """The answer of `POST /recommend/batch`."""

    results: list[RecommendAnswer] = Field(description="In the order of the requests.")


class EventBody(BaseModel):
    """One event."""

    event_id: Id = Field(description="An event that is sent again with the same id within 7 days counts once.")
    user_id: Id
    item_id: Id
    domain: Id
    event: Literal["interaction", "impression", "click"] = "interaction"
    timestamp: float | Annotated[str, Field(max_length=64)] | None = Field(
        None, description="Seconds since 1970 or ISO 8601, UTC; left out: now. At most a day ahead."
    )
    recommendation_id: Id | None = Field(None, description="Of the answer that led to it.")
    rank: Annotated[int, Field(ge=1)] | None = None


class EventsBody(BaseModel):
    """What is asked of `POST /events`. An event that cannot be taken is told so; the others are taken."""

    model_config = ConfigDict(extra="forbid")
    events: list[EventBody] = Field(max_length=1000)


class RejectedEvent(BaseModel):
    """An event that was not taken."""

    index: int = Field(description="Its place in the call.")
    reason: str


class EventsTaken(BaseModel):
    """The answer of `POST /events`: Redis has the accepted ones."""

    accepted: int
    duplicates: int
    rejected: list[RejectedEvent]


class ItemBody(BaseModel):
    """What is asked of `PUT /items/{domain}/{item_id}`: the whole state; what is left out is as in the bundle."""

    model_config = ConfigDict(strict=True, extra="forbid")
    available: bool = Field(True, description="Whether the item may be recommended.")
    categories: Annotated[list[Id], Field(max_length=100)] | None = Field(
        None, description="In place of those of the bundle."
    )


class ItemSet(BaseModel):
    """The answer of `PUT /items/{domain}/{item_id}`."""

    domain: str
    item_id: str
    available: bool
    categories: list[str] | None
    known: bool = Field(description="Whether the served model has the item; a later one may.")


class SimilarAnswer(BaseModel):
    """The answer of `GET /items/{domain}/{item_id}/similar`."""

    model_config = ConfigDict(protected_namespaces=())
    domain: str
    item_id: str
    model_version: str
    domains: dict[str, list[Item]] = Field(description="Most similar first, never the item itself.")


class StoredEvent(BaseModel):
    """One event of a user. Without domain and item_id: the served model does not know the item."""

    domain: str | None
    item_id: str | None
    title: str | None
    timestamp: int = Field(description="Seconds since 1970, UTC.")


class UserHistory(BaseModel):
    """The answer of `GET /users/{user_id}/history`."""

    user_id: str
    events: list[StoredEvent] = Field(description="Oldest first.")
    older_items: int = Field(description="Items from before these events, kept only to leave them out of answers.")


class Erased(BaseModel):
    """The answer of `DELETE /users/{user_id}`."""

    user_id: str
    erased: bool = Field(description="Whether there was anything.")


class ModelAnswer(BaseModel):
    """One bundle of the models folder, as this replica sees it."""

    model_config = ConfigDict(protected_namespaces=())
    model_version: str
    state: Literal["active", "previous", "available", "damaged"] = Field(
        description="active: answers here; previous: comes back with a rollback."
    )
    live: bool = Field(description="Whether it is loaded here: several are, where experiments compare them.")
    problem: str | None = Field(description="Why it was refused when it was tried, or what is damaged.")
    created_at: datetime | None
    domains: dict[str, int] | None = Field(description="Items per domain.")
    evaluation: dict[str, Any] | None
    mixture: dict[str, dict[str, float]] | None


class ModelsAnswer(BaseModel):
    """The answer of `GET /models`."""

    active: str
    models: list[ModelAnswer] = Field(description="Newest first.")


class Activated(BaseModel):
    """The answer of the routes that switch models. Other replicas follow within 2 s."""

    active: str
    before: str


class ProblemError(BaseModel):
    """One thing that is wrong with a request."""

    field: str = Field(description="Where: `history[0].item_id`; empty: the body as a whole.")
    detail: str


class Problem(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    errors: list[ProblemError] = []


class Alive(BaseModel):
    """The answer of `GET /healthz`."""

    status: Literal["alive"] = "alive"


class ProviderState(BaseModel):
    """What was asked to run the model, and what runs it."""

    asked: str
    got: str


class Ready(BaseModel):
    """The answer of `GET /readyz`. degraded: able to serve, but by popularity, since Redis is away. draining: about to end."""

    model_config = ConfigDict(protected_namespaces=())
    status: Literal["ready", "degraded", "draining"]
    model_version: str
    provider: ProviderState
    history_store: Literal["available", "unavailable"]
    redis: Literal["embedded", "external"]
