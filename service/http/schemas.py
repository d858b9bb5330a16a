"""The JSON of the contract as pydantic models: what OpenAPI shows, and what names every wrong field of a refused body.

The hot route decodes with `service.recommend.RecommendRequest` instead, which refuses the same bodies ten times faster.
"""

from typing import Annotated, Literal

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
    experiment: ExperimentAssignment | None = None
    missing_ids: list[str] = Field(description="Ids of the request that the model does not know.")
    domains: dict[str, list[Item]] = Field(description="Best first.")


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
    """The answer of `GET /readyz`. `degraded`: able to serve, but by popularity, since Redis is away."""

    model_config = ConfigDict(protected_namespaces=())
    status: Literal["ready", "degraded"]
    model_version: str
    provider: ProviderState
    history_store: Literal["available", "unavailable"]
    redis: Literal["embedded", "external"]
