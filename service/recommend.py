"""Recommender: one request as one readable function, on top of histories and the models. Knows no HTTP."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.errors import (
    CategoriesUnknown,
    FieldError,
    HistoryUnavailable,
    InvalidRequest,
    PartFailed,
    UnknownDomain,
)
from service.history.packed import MAX_TIMESTAMP, History
from service.history.store import HistoryStore
from service.identifiers import new_uuid7
from service.logs import Occasionally
from service.metrics import Metrics
from service.models.live import LiveModel
from service.models.models import Models
from service.ranking.catalog import NO_ITEMS, Catalog
from service.ranking.popularity import most_popular, with_new_items
from service.ranking.query import DomainList, Query
from service.timestamps import seconds_of
from service.users import known_events, new_seen, seen_before

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
    """

    recommendation_id: str
    user_id: str
    catalog: Catalog
    source: Source
    missing_ids: list[str]
    lists: list[tuple[str, DomainList]]
    timing: Timing


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


@dataclass(frozen=True)
class _Asked:
    """A request in terms of one model; `history` only where the request brings one."""

    request: RecommendRequest
    domains: list[str]
    restricted: tuple[bool, ...]
    include: NDArray[np.int32]
    excluded: NDArray[np.int32]
    history: NDArray[np.int32] | None
    missing: _Missing


class Recommender:
    """Answers requests; holds nothing of any one of them."""

    def __init__(self, histories: HistoryStore, models: Models, metrics: Metrics) -> None:
        self._histories, self._models, self._metrics = histories, models, metrics
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
        with self._models.used() as model:
            return await self._answer(model, _understood(model, request), deadline)

    async def recommend_all(self, requests: Sequence[RecommendRequest], deadline: float) -> list[Recommendation]:
        """The answers to many requests, all by one model, in their order.

        Raises:
            InvalidRequest: names the wrong fields of every request, `requests[3].domains[0]`; none is answered then.
            QueueFull, DeadlineExceeded: of any of them; asked again, all can be answered.
        """
        with self._models.used() as model:
            asked, errors = [], []
            for place, request in enumerate(requests):
                try:
                    asked.append(_understood(model, request))
                except InvalidRequest as error:
                    errors += [FieldError(f"requests[{place}].{one.field}", one.detail) for one in error.errors]
            if errors:
                raise InvalidRequest(errors)
            answers = [asyncio.ensure_future(self._answer(model, one, deadline)) for one in asked]
            try:
                return list(await asyncio.gather(*answers))
            finally:
                # Of a call that fails, nothing goes on; and the model is in use until the last one has ended.
                for answer in answers:
                    answer.cancel()
                await asyncio.gather(*answers, return_exceptions=True)

    async def _answer(self, model: LiveModel, asked: _Asked, deadline: float) -> Recommendation:
        start = time.monotonic()
        history, is_unavailable = await self._history(asked)
        history_s = time.monotonic() - start
        self._metrics.history(history_s)
        query = _query(model, asked, history)
        source: Source = "model" if len(query.history) else "degraded" if is_unavailable else "popularity"
        source, lists, queue_s, inference_s = await self._rank(model, query, source, deadline)
        number = model.catalog.domain_number
        return Recommendation(
            recommendation_id=new_uuid7(),
            user_id=asked.request.user_id,
            catalog=model.catalog,
            source=source,
            missing_ids=list(asked.missing.ids),
            lists=[(name, lists[number[name]]) for name in asked.domains],
            timing=Timing(history_s, queue_s, inference_s),
        )

    async def _history(self, asked: _Asked) -> tuple[History | None, bool]:
        """What is stored of the user, if that is wanted; and whether it could not be had."""
        if asked.history is not None:
            return None, False
        try:
            return await self._histories.look_up(asked.request.user_id), False
        except HistoryUnavailable as error:
            self._report("history", error.reason, error)
            return None, True

    async def _rank(
        self, model: LiveModel, query: Query, source: Source, deadline: float
    ) -> tuple[Source, list[DomainList], float, float]:
        if source == "model":
            try:
                ran = await model.ranker.rank(query, deadline)
            except PartFailed as error:
                self._report("model", type(error).__name__, error)
                source = "degraded"
            else:
                return source, with_new_items(ran.answer, model.popularity, query), ran.queued_s, ran.run_s
        return source, most_popular(model.popularity, query), 0.0, 0.0

    def _report(self, part: str, reason: str, error: PartFailed) -> None:
        self._metrics.failure(part, reason)
        if (held_back := self._log_lines.now(part)) is not None:
            log.warning("answering by popularity: %s", error, extra={"part": part, "lines_held_back": held_back})


def _understood(model: LiveModel, request: RecommendRequest) -> _Asked:
    """A request in terms of a model.

    Raises:
        InvalidRequest: a domain, a time or a filter that this model cannot answer to.
    """
    catalog, missing = model.catalog, _Missing()
    domains = _domains(catalog, request)
    restricted, include = _allowed(model, request, domains, missing)
    history = None if request.history is None else _given(catalog, request.history, missing)
    excluded = _excluded(catalog, request.exclude_item_ids, missing)
    return _Asked(request, domains, restricted, include, excluded, history, missing)


def _query(model: LiveModel, asked: _Asked, stored: History | None) -> Query:
    catalog, request = model.catalog, asked.request
    if stored is None:
        seen = history = NO_ITEMS if asked.history is None else asked.history
    else:
        history = known_events(stored, catalog)
        seen = np.concatenate([history, seen_before(stored, catalog)])
    exclude = np.concatenate([seen if request.exclude_seen else NO_ITEMS, asked.excluded, model.states.unavailable])
    return Query(history, exclude, asked.restricted, asked.include, request.k, _new_excluded(model, request, stored))


def _new_excluded(model: LiveModel, request: RecommendRequest, stored: History | None) -> tuple[NDArray[np.int32], ...]:
    """Per domain, the items newer than the model that must not be answered."""
    excluded = []
    for domain, ranked in zip(model.catalog.domains, model.popularity.domains, strict=True):
        if not ranked.new_ids:
            excluded.append(NO_ITEMS)
            continue
        parts = [
            ranked.new_items(request.exclude_item_ids),
            ranked.new_items(model.states.unavailable_elsewhere.get(domain, ())),
        ]
        if request.exclude_seen:
            parts.append(ranked.new_items(one.item_id for one in request.history or () if one.domain == domain))
            parts += [] if stored is None else [new_seen(stored, ranked)]
        excluded.append(np.concatenate(parts))
    return tuple(excluded)


def _domains(catalog: Catalog, request: RecommendRequest) -> list[str]:
    """The domains to answer in, each once."""
    if request.domains is None:
        return list(catalog.domains)
    for place, name in enumerate(request.domains):
        if name not in catalog.domain_number:
            raise UnknownDomain(name, catalog.domains, f"domains[{place}]")
    return list(dict.fromkeys(request.domains))


def _allowed(
    model: LiveModel, request: RecommendRequest, domains: list[str], missing: _Missing
) -> tuple[tuple[bool, ...], NDArray[np.int32]]:
    """Where only some items may be answered, and which: `Query.restricted` and `Query.include`."""
    catalog, states = model.catalog, model.states
    if not request.candidates and not request.categories:
        return (False,) * len(catalog.domains), NO_ITEMS
    candidates = {name: _candidates(catalog, name, item_ids, missing) for name, item_ids in request.candidates.items()}
    if not request.categories:
        restricted = tuple(name in candidates for name in catalog.domains)
        return restricted, np.concatenate([NO_ITEMS, *candidates.values()])
    if not catalog.has_categories and not states.has_categories:
        raise CategoriesUnknown
    allowed = [NO_ITEMS]
    in_categories = states.in_categories(catalog.in_categories(request.categories), request.categories)
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
    if timestamp is None:
        return None
    try:
        return seconds_of(timestamp)
    except ValueError:
        raise InvalidRequest([FieldError(field_name, "neither seconds since 1970 nor ISO 8601")]) from None
