"""Recommender: one request as one readable function, on top of histories and the models. Knows no HTTP."""

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from service.errors import (
    CategoriesUnknown,
    FieldError,
    HistoryUnavailable,
    InvalidRequest,
    PartFailed,
    ServiceError,
    UnknownDomain,
    UnknownModel,
)
from service.experiments.definition import Policy
from service.experiments.serving import Placed, placement
from service.experiments.store import ExperimentStore
from service.history.packed import MAX_TIMESTAMP, History
from service.history.store import HistoryStore
from service.identifiers import new_uuid7
from service.logs import Occasionally
from service.merge import Ranked, blended, interleaved
from service.metrics import Metrics
from service.models.live import LiveModel
from service.models.models import Models
from service.ranking.catalog import NO_ITEMS, Catalog
from service.ranking.popularity import most_popular, with_new_items
from service.ranking.popularity_view import PopularityView
from service.ranking.query import Query
from service.recommendation import Recommendation, Source, Timing
from service.record import Recorder
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

# Of an answer with two sources, the later one is named.
WORST: tuple[Source, ...] = ("model", "popularity", "degraded")
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


@dataclass(frozen=True)
class _Arm:
    """What answers a request, or half of it. is_lost: its own model is not live, `model` stands in with its popularity."""

    model: LiveModel
    policy: Policy
    is_lost: bool
    asked: _Asked


@dataclass(frozen=True)
class _Understood:
    """A request, its user's experiments, and what answers: two arms where lists are interleaved."""

    request: RecommendRequest
    placed: Placed
    arms: list[_Arm]


class Recommender:
    """Answers requests; holds nothing of any one of them."""

    def __init__(
        self,
        histories: HistoryStore,
        models: Models,
        experiments: ExperimentStore,
        recorder: Recorder,
        metrics: Metrics,
    ) -> None:
        self._histories, self._models, self._metrics = histories, models, metrics
        self._experiments, self._recorder = experiments, recorder
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
        with ExitStack() as in_use:
            return await self._answer(self._understood(in_use, request), deadline)

    async def recommend_all(self, requests: Sequence[RecommendRequest], deadline: float) -> list[Recommendation]:
        """The answers to many requests in their order; all that the active model answers, by one.

        Raises:
            InvalidRequest: names the wrong fields of every request, `requests[3].domains[0]`; none is answered then.
            QueueFull, DeadlineExceeded: of any of them; asked again, all can be answered.
        """
        with ExitStack() as in_use:
            understood, errors = [], []
            for place, request in enumerate(requests):
                try:
                    understood.append(self._understood(in_use, request))
                except InvalidRequest as error:
                    errors += [FieldError(f"requests[{place}].{one.field}", one.detail) for one in error.errors]
            if errors:
                raise InvalidRequest(errors)
            answers = [asyncio.ensure_future(self._answer(one, deadline)) for one in understood]
            try:
                return list(await asyncio.gather(*answers))
            finally:
                # Of a call that fails, nothing goes on; and the model is in use until the last one has ended.
                for answer in answers:
                    answer.cancel()
                await asyncio.gather(*answers, return_exceptions=True)

    def _understood(self, in_use: ExitStack, request: RecommendRequest) -> _Understood:
        """A request in terms of the models that its user's arms ask for, which stay open as long as `in_use`.

        Raises:
            InvalidRequest: a domain, a time or a filter that these cannot answer to.
        """
        placed = placement(self._experiments.current, request.user_id, request.k, request.domains)
        arms = []
        for variant in placed.variants:
            model, is_lost = self._models.serving, False
            if (version := variant.policy.model_version) is not None:
                try:
                    model = in_use.enter_context(self._models.used(version))
                except UnknownModel as error:
                    # The user stays in the arm, whatever answers: who drops out of an arm makes it look better.
                    self._report("model", "UnknownModel", error)
                    is_lost = True
            in_use.enter_context(model.used())
            arms.append(_Arm(model, variant.policy, is_lost, _understood(model, request)))
        return _Understood(request, placed, arms)

    async def _answer(self, understood: _Understood, deadline: float) -> Recommendation:
        request, placed, arms = understood.request, understood.placed, understood.arms
        recommendation_id, start = new_uuid7(), time.monotonic()
        try:
            stored, is_unavailable = await self._history(request)
            history_s = time.monotonic() - start
            self._metrics.history(history_s)
            ranked = [await self._ranked(arm, stored, is_unavailable, deadline) for arm in arms]
        except ServiceError:
            self._recorder.refused(recommendation_id, request.user_id, placed, time.monotonic() - start)
            raise
        lists = ranked[0].lists
        teams: tuple[list[str], ...] = ()
        if len(ranked) > 1:
            names = [variant.name for variant in placed.variants]
            lists, teams = interleaved(recommendation_id, arms[0].model.catalog, names, ranked, request.k)
        answer = Recommendation(
            recommendation_id=recommendation_id,
            user_id=request.user_id,
            catalog=arms[0].model.catalog,
            source=max((one.source for one in ranked), key=WORST.index),
            missing_ids=list(arms[0].asked.missing.ids),
            lists=lists,
            timing=Timing(history_s, sum(one.queue_s for one in ranked), sum(one.inference_s for one in ranked)),
            placed=placed,
            teams=teams,
        )
        self._recorder.served(answer, time.monotonic() - start)
        return answer

    async def _ranked(self, arm: _Arm, stored: History | None, is_unavailable: bool, deadline: float) -> Ranked:
        """What one arm answers."""
        model, policy = arm.model, arm.policy
        # One view to the end: what is excluded is said in its terms, and the next one may have more new items.
        view = model.popularity
        query = _query(model, view, arm.asked, stored)
        source: Source = "popularity"
        queue_s = inference_s = 0.0
        lists = None
        if is_unavailable or arm.is_lost:
            source = "degraded"
        elif len(query.history) and not policy.popularity:
            try:
                ran = await model.ranker.rank(query, deadline)
            except PartFailed as error:
                self._report("model", type(error).__name__, error)
                source = "degraded"
            else:
                source, queue_s, inference_s = "model", ran.queued_s, ran.run_s
                lists = with_new_items(ran.answer, view, query)
                if policy.blend is not None:
                    lists = blended(lists, most_popular(view, query), policy.blend.share, query.k)
        if lists is None:
            lists = most_popular(view, query)
        number = model.catalog.domain_number
        named = [(name, lists[number[name]]) for name in arm.asked.domains]
        return Ranked(model.catalog, source, named, queue_s, inference_s)

    async def _history(self, request: RecommendRequest) -> tuple[History | None, bool]:
        """What is stored of the user, if that is wanted; and whether it could not be had."""
        if request.history is not None:
            return None, False
        try:
            return await self._histories.look_up(request.user_id), False
        except HistoryUnavailable as error:
            self._report("history", error.reason, error)
            return None, True

    def _report(self, part: str, reason: str, error: ServiceError) -> None:
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


def _query(model: LiveModel, view: PopularityView, asked: _Asked, stored: History | None) -> Query:
    catalog, request = model.catalog, asked.request
    if stored is None:
        seen = history = NO_ITEMS if asked.history is None else asked.history
    else:
        history = known_events(stored, catalog)
        seen = np.concatenate([history, seen_before(stored, catalog)])
    exclude = np.concatenate([seen if request.exclude_seen else NO_ITEMS, asked.excluded, model.states.unavailable])
    return Query(
        history, exclude, asked.restricted, asked.include, request.k, _new_excluded(model, view, request, stored)
    )


def _new_excluded(
    model: LiveModel, view: PopularityView, request: RecommendRequest, stored: History | None
) -> tuple[NDArray[np.int32], ...]:
    """Per domain, the items newer than the model that must not be answered."""
    excluded = []
    for domain, ranked in zip(model.catalog.domains, view.domains, strict=True):
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
