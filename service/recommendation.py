"""Recommendation: the answer to one request."""

from dataclasses import dataclass
from typing import Literal

from service.experiments.serving import NOT_PLACED, Placed
from service.ranking.catalog import Catalog
from service.ranking.query import DomainList

Source = Literal["model", "popularity", "degraded"]


@dataclass(frozen=True)
class Timing:
    """Where a request's time went, in seconds; 0 for what it did not need."""

    history_s: float
    queue_s: float
    inference_s: float


@dataclass(frozen=True)
class Recommendation:
    """The answer to one request.

    lists: in the order in which the domains were asked for.
    timing: time that Redis, the queue and the model took; what else the request took is ours.
    placed: the experiments that the user is in.
    teams: of interleaved lists, whose each item is, as the lists; else nothing.
    """

    recommendation_id: str
    user_id: str
    catalog: Catalog
    source: Source
    missing_ids: list[str]
    lists: list[tuple[str, DomainList]]
    timing: Timing
    placed: Placed = NOT_PLACED
    teams: tuple[list[str], ...] = ()
