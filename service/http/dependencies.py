"""What a route may ask for by a short name; all of it was opened in the lifespan."""

from typing import Annotated

from fastapi import Depends, Request

from service.history.store import HistoryStore
from service.metrics import Metrics
from service.ranking.ranker import Ranker


def _histories(request: Request) -> HistoryStore:
    found: HistoryStore = request.state.histories
    return found


def _ranker(request: Request) -> Ranker:
    found: Ranker = request.state.ranker
    return found


def _metrics(request: Request) -> Metrics:
    found: Metrics = request.state.metrics
    return found


def _redis_is_embedded(request: Request) -> bool:
    return bool(request.state.redis_is_embedded)


Histories = Annotated[HistoryStore, Depends(_histories)]
TheRanker = Annotated[Ranker, Depends(_ranker)]
TheMetrics = Annotated[Metrics, Depends(_metrics)]
RedisIsEmbedded = Annotated[bool, Depends(_redis_is_embedded)]
