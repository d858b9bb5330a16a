"""What a route may ask for by a short name; all of it was opened in the lifespan."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request

from service.events.intake import Intake
from service.events.stream import EventLog
from service.experiments.store import ExperimentStore
from service.history.store import HistoryStore
from service.metrics import Metrics
from service.models.models import Models
from service.ranking.item_states import ItemStateStore
from service.scripts import Client

Part = TypeVar("Part")


def _opened(name: str) -> Any:
    def find(request: Request) -> Any:
        return getattr(request.state, name)

    return Depends(find)


Histories = Annotated[HistoryStore, _opened("histories")]
TheModels = Annotated[Models, _opened("models")]
TheMetrics = Annotated[Metrics, _opened("metrics")]
TheItems = Annotated[ItemStateStore, _opened("items")]
TheIntake = Annotated[Intake, _opened("intake")]
TheEventLog = Annotated[EventLog, _opened("event_log")]
TheExperiments = Annotated[ExperimentStore, _opened("experiments")]
TheRedis = Annotated[Client, _opened("redis")]
RedisIsEmbedded = Annotated[bool, _opened("redis_is_embedded")]
IsDraining = Annotated[Callable[[], bool], _opened("is_draining")]
