"""Recommender: one request as one readable function, on top of histories and the ranker. Knows no HTTP."""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.errors import CategoriesUnknown, FieldError, HistoryUnavailable, InvalidRequest, PartFailed, UnknownDomain
from service.history.packed import MAX_TIMESTAMP
from service.history.store import HistoryStore
from service.identifiers import new_uuid7
from service.logs import Occasionally
from service.metrics import Metrics
from service.ranking.catalog import NO_ITEMS, Catalog
from service.ranking.popularity import most_popular
from service.ranking.query import DomainList, Query
from service.ranking.ranker import Ranker

log = logging.getLogger(__name__)

MAX_ID_CHARS = 256
MAX_HISTORY = 1000
MAX_CANDIDATES = 1000
MAX_EXCLUDED = 1000
MAX_CATEGORIES = 100
MAX_DOMAINS = 100
MAX_K = 100

Source = Literal["model", "popularity", "degraded"]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_CHARS)]


class HistoryEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One interaction of a history that comes with the request."""

    item_id: Id
    domain: Id
    timestamp: (
        Annotated[float, msgspec.Meta(ge=0, le=MAX_TIMESTAMP)] | Annotated[str, msgspec.Meta(max_length=64)] | None
    ) = None


class RecommendRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of /recommend. `http/schemas.py` says the same to people and OpenAPI; a test holds both equal."""

    user_id: Id
    domains: Annotated[list[Id], msgspec.Meta(min_length=1, max_length=MAX_DOMAINS)] | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)] = 10
    exclude_seen: bool = True
    exclude_item_ids: Annotated[list[Id], msgspec.Meta(max_length=MAX_EXCLUDED)] = []
    history: Annotated[list[HistoryEvent], msgspec.Meta(max_length=MAX_HISTORY)] | None = None
    candidates: dict[Id, Annotated[list[Id], msgspec.Meta(max_length=MAX_CANDIDATES)]] = {}
    categories: Annotated[list[Id], msgspec.Meta(max_length=MAX_CATEGORIES)] = []


@dataclass(frozen=True)
class Recommendation:
    """The answer to one request.

    lists: in the order in which the domains were asked for.
    waited_s: time spent on Redis and the ranker; what else the request took is ours.
    """

    recommendation_id: str
    user_id: str
    catalog: Catalog
    source: Source
    missing_ids: list[str]
    lists: list[tuple[str, DomainList]]
    waited_s: float


@dataclass
class _Missing:
    """Ids that the model does not know, each once, in order."""

    ids: dict[str, None] = field(default_factory=dict)

    def known(self, found: Iterable[tuple[str, int]]) -> list[int]:
        """The indices of the items that are known; the ids of the others are noted."""
        known = []
        for item_id, index in found:
            if index:
                known.append(index)
            else:
                self.ids[item_id] = None
        return known


class Recommender:
    """Answers requests; holds nothing of any one of them."""

    def __init__(self, histories: HistoryStore, ranker: Ranker, metrics: Metrics) -> None:
        self._histories, self._ranker, self._metrics = histories, ranker, metrics
        self._log_lines = Occasionally()

    async def recommend(self, request: RecommendRequest, deadline: float) -> Recommendation:
        """The best items per domain for one user.

        Args:
            request: checked in form, not yet against the catalogue.
            deadline: on the clock of time.monotonic.
        Raises:
            InvalidRequest: a domain, a time or a filter that this model cannot answer to.
            QueueFull: too many requests wait for the model.
            DeadlineExceeded: the model did not answer in time.
        """
        catalog = self._ranker.catalog
        missing = _Missing()
        domains = _domains(catalog, request)
        restricted, include = _allowed(catalog, request, domains, missing)
        start = time.monotonic()
        history, source = await self._history(catalog, request, missing)
        history_s = time.monotonic() - start
        self._metrics.history(history_s)
        seen = history if request.exclude_seen else NO_ITEMS
        excluded = _excluded(catalog, request.exclude_item_ids, missing)
        query = Query(history, np.concatenate([seen, excluded]), restricted, include, request.k)
        start = time.monotonic()
        source, lists = await self._rank(catalog, query, source, deadline)
        rank_s = time.monotonic() - start
        return Recommendation(
            recommendation_id=new_uuid7(),
            user_id=request.user_id,
            catalog=catalog,
            source=source,
            missing_ids=list(missing.ids),
            lists=[(name, lists[catalog.domain_number[name]]) for name in domains],
            waited_s=history_s + rank_s,
        )

    async def _history(
        self, catalog: Catalog, request: RecommendRequest, missing: _Missing
    ) -> tuple[NDArray[np.int32], Source]:
        """The known items of the history, oldest first, and who can answer to it."""
        if request.history is not None:
            history = _given(catalog, request.history, missing)
        else:
            try:
                events = await self._histories.read(request.user_id)
            except HistoryUnavailable as error:
                self._report("history", error.reason, error)
                return NO_ITEMS, "degraded"
            history = NO_ITEMS if events is None else catalog.by_hash(events["item_hash"])
            history = history[history > 0]
        return history, "model" if len(history) else "popularity"

    async def _rank(
        self, catalog: Catalog, query: Query, source: Source, deadline: float
    ) -> tuple[Source, list[DomainList]]:
        if source == "model":
            try:
                return source, await self._ranker.rank(query, deadline)
            except PartFailed as error:
                self._report("model", type(error).__name__, error)
                source = "degraded"
        return source, most_popular(catalog, query)

    def _report(self, part: str, reason: str, error: PartFailed) -> None:
        self._metrics.failure(part, reason)
        if (held_back := self._log_lines.now(part)) is not None:
            log.warning("answering by popularity: %s", error, extra={"part": part, "lines_held_back": held_back})


def _domains(catalog: Catalog, request: RecommendRequest) -> list[str]:
    """The domains to answer in, each once."""
    if request.domains is None:
        return list(catalog.domains)
    for place, name in enumerate(request.domains):
        if name not in catalog.domain_number:
            raise UnknownDomain(name, catalog.domains, f"domains[{place}]")
    return list(dict.fromkeys(request.domains))


def _allowed(
    catalog: Catalog, request: RecommendRequest, domains: list[str], missing: _Missing
) -> tuple[tuple[bool, ...], NDArray[np.int32]]:
    """Where only some items may be answered, and which: `Query.restricted` and `Query.include`."""
    if not request.candidates and not request.categories:
        return (False,) * len(catalog.domains), NO_ITEMS
    candidates = {name: _candidates(catalog, name, item_ids, missing) for name, item_ids in request.candidates.items()}
    if not request.categories:
        restricted = tuple(name in candidates for name in catalog.domains)
        return restricted, np.concatenate([NO_ITEMS, *candidates.values()])
    if not catalog.has_categories:
        raise CategoriesUnknown
    allowed = [NO_ITEMS]
    in_categories = catalog.in_categories(request.categories)
    for name in domains:
        first, after = catalog.bounds(name)
        inside = in_categories[np.searchsorted(in_categories, first) : np.searchsorted(in_categories, after)]
        allowed.append(np.intersect1d(inside, candidates[name]) if name in candidates else inside)
    return (True,) * len(catalog.domains), np.concatenate(allowed)


def _candidates(catalog: Catalog, domain: str, item_ids: list[str], missing: _Missing) -> NDArray[np.int32]:
    if domain not in catalog.domain_number:
        raise UnknownDomain(domain, catalog.domains, f"candidates.{domain}")
    known = missing.known((item_id, catalog.item_index(domain, item_id)) for item_id in item_ids)
    return np.array(known, dtype=np.int32)


def _excluded(catalog: Catalog, item_ids: list[str], missing: _Missing) -> NDArray[np.int32]:
    if not item_ids:
        return NO_ITEMS
    # An id is unique within its domain only: it is excluded wherever it is.
    known = missing.known((item_id, index) for item_id in item_ids for index in catalog.in_any_domain(item_id) or [0])
    return np.array(known, dtype=np.int32)


def _given(catalog: Catalog, events: list[HistoryEvent], missing: _Missing) -> NDArray[np.int32]:
    """The known items of a history from the request, oldest first; in the order given where times are missing."""
    for place, event in enumerate(events):
        if event.domain not in catalog.domain_number:
            raise UnknownDomain(event.domain, catalog.domains, f"history[{place}].domain")
    times = [_seconds(event.timestamp, f"history[{place}].timestamp") for place, event in enumerate(events)]
    known_times = [moment for moment in times if moment is not None]
    order: Iterable[int] = range(len(events))
    if len(known_times) == len(events):
        order = sorted(order, key=known_times.__getitem__)
    known = missing.known(
        (events[place].item_id, catalog.item_index(events[place].domain, events[place].item_id)) for place in order
    )
    return np.array(known, dtype=np.int32)


def _seconds(timestamp: float | str | None, field_name: str) -> float | None:
    """A time of the contract as seconds since 1970; text is ISO 8601, UTC where it names no zone."""
    if not isinstance(timestamp, str):
        return timestamp
    try:
        moment = datetime.fromisoformat(timestamp)
    except ValueError:
        raise InvalidRequest([FieldError(field_name, "neither seconds since 1970 nor ISO 8601")]) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
