"""Intake: the events of one call, each taken once or told why not. Knows no HTTP."""

import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import msgspec

from service.errors import HistoryUnavailable
from service.events.event import Event, Unusable, read_event
from service.events.served import Told
from service.events.stream import EventLog
from service.failures import REDIS_FAILURES, short_reason
from service.history.write import HistoryWriter, NewEvent

IN_HISTORY = ("interaction", "click")


@dataclass(frozen=True)
class Rejected:
    """An event that was not taken: its place in the call, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Taken:
    """What became of a call's events. rejected: in the order of the call."""

    accepted: int
    duplicates: int
    rejected: list[Rejected]


class Intake:
    """Takes events."""

    def __init__(
        self,
        histories: HistoryWriter,
        log: EventLog,
        count: Callable[[str, str, float], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Args: where histories are written; the log; what counts a domain's item at a time; seconds since 1970."""
        self._histories, self._log, self._count, self._clock = histories, log, count, clock

    async def take(self, raw_events: Sequence[bytes | msgspec.Raw], domains: Container[str]) -> Taken:
        """Take events: when this returns, Redis has the accepted ones.

        Args:
            raw_events: one JSON value each.
            domains: the known ones; an event of another is rejected.

        Raises:
            HistoryUnavailable: Redis did not take all, or did not say. All can be sent again: those it took count once.
        """
        now = self._clock()
        usable: list[tuple[int, Event, float]] = []
        rejected: list[Rejected] = []
        for index, raw in enumerate(raw_events):
            try:
                usable.append((index, *read_event(raw, domains, now)))
            except Unusable as error:
                rejected.append(Rejected(index, str(error)))
        # Before the histories: an event that is sent again may be in the log twice, which changes nothing, but never not at all.
        await self._write_down(usable)
        outcomes = await self._histories.append([_new(event, seconds) for _, event, seconds in usable], now)
        for (index, event, seconds), outcome in zip(usable, outcomes, strict=True):
            if outcome == "taken" and event.event in IN_HISTORY:
                self._count(event.domain, event.item_id, seconds)
            elif outcome == "refused":
                rejected.append(Rejected(index, "what is stored of this user is no history; erase the user first"))
        rejected.sort(key=lambda one: one.index)
        if "failed" in outcomes:  # of a cluster, one node may be away
            raise HistoryUnavailable("some users' events were not taken; send all of them again")
        return Taken(outcomes.count("taken"), outcomes.count("duplicate"), rejected)

    async def _write_down(self, usable: Sequence[tuple[int, Event, float]]) -> None:
        for _, event, seconds in usable:
            self._log.put(
                Told(
                    user_id=event.user_id,
                    item_id=event.item_id,
                    domain=event.domain,
                    timestamp=seconds,
                    event=event.event,
                    event_id=event.event_id,
                    recommendation_id=event.recommendation_id,
                    rank=event.rank,
                )
            )
        try:
            await self._log.flush()
        except REDIS_FAILURES as error:
            raise HistoryUnavailable(short_reason(error)) from None


def _new(event: Event, seconds: float) -> NewEvent:
    return NewEvent(event.event_id, event.user_id, event.domain, event.item_id, int(seconds), event.event in IN_HISTORY)
