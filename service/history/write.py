"""HistoryWriter: events into histories, each once; many users in one round trip, each user atomically."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import numpy as np
from redis.exceptions import RedisError

from formats.event_ties import item_hashes, tie_hashes, user_hashes
from formats.event_times import MICROSECONDS
from service.errors import HistoryUnavailable
from service.failures import short_reason
from service.history.keys import event_ids_key, history_key
from service.history.packed import EVENT, Events
from service.history.seen import MAX_BYTES
from service.scripts import Call, Client, Script

# An id is remembered as 48 bits, among those of its user: at MAX_IDS of them, one new event in 1.7e10 looks known.
ID_BYTES = 6
ID_DAYS = 7
MAX_IDS = 16_384  # of a user; one event every 37 s for a week
USERS_AT_ONCE = 100  # per round trip; in between, requests get their turn
TAKEN = ord("1")
DAY_S = 86_400

RECORD = np.dtype([("id", "u1", ID_BYTES), ("is_listed", "u1"), ("event", EVENT)])

Outcome = Literal["taken", "duplicate", "refused", "failed"]
UNREADABLE = "not a packed history"  # as append.lua says


@dataclass(frozen=True, slots=True)
class NewEvent:
    """One event. timestamp: seconds since 1970, UTC. is_listed: whether it goes into the history (an impression does not)."""

    event_id: str
    user_id: str
    domain: str
    item_id: str
    timestamp: int
    is_listed: bool


@dataclass(frozen=True)
class HistoryRules:
    """How histories are kept.

    limit: newest events kept per user; what was in older ones is remembered as seen.
    days: after the last event, until a history is forgotten.
    keep_repeats: whether a user's later events of an item are kept too.
    """

    limit: int
    days: int
    keep_repeats: bool


class HistoryWriter:
    """Writes histories."""

    def __init__(self, redis: Client, timeout_ms: float, rules: HistoryRules) -> None:
        self._redis, self._timeout_s, self._rules = redis, timeout_ms / 1000, rules
        self._script = Script("service.history", "append.lua")
        self._writes: set[asyncio.Task[list[Outcome]]] = set()

    async def append(self, events: Sequence[NewEvent], now: float) -> list[Outcome]:
        """Take events, each once: one whose id its user sent within the last 7 days is a duplicate.

        Who is cancelled while waiting only stops waiting: the write goes on, and no reply stays on a connection.

        Args:
            events: of any users, in any order.
            now: seconds since 1970.

        Returns:
            Of each event. `refused`: what Redis holds of that user is no history, now and later. `failed`: Redis did not take
            that user's events, or did not say; they can be sent again.

        Raises:
            HistoryUnavailable: no answer in time, or all failed. What was taken is unknown; sent again, it is taken once.
        """
        write = asyncio.get_running_loop().create_task(self._append(events, now))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.shield(write)
        except TimeoutError:
            write.add_done_callback(_forget)
            raise HistoryUnavailable("timeout") from None

    async def close(self) -> None:
        """Wait for the writes that are under way; the time-out of their connection bounds them."""
        await asyncio.gather(*self._writes, return_exceptions=True)

    async def _append(self, events: Sequence[NewEvent], now: float) -> list[Outcome]:
        places: dict[str, list[int]] = {}
        for place, event in enumerate(events):
            places.setdefault(event.user_id, []).append(place)
        users = list(places.items())
        outcomes: list[Outcome] = ["failed"] * len(events)
        failure = None
        for start in range(0, len(users), USERS_AT_ONCE):
            try:
                failure = await self._append_users(events, users[start : start + USERS_AT_ONCE], now, outcomes)
            except (RedisError, OSError, TimeoutError) as error:
                failure = error
                break
        if failure is not None and outcomes.count("failed") == len(outcomes):
            raise HistoryUnavailable(short_reason(failure))
        return outcomes

    async def _append_users(
        self, events: Sequence[NewEvent], users: Sequence[tuple[str, list[int]]], now: float, outcomes: list[Outcome]
    ) -> Exception | None:
        """Take some users' events, at these places, and fill in the outcomes. Returns what Redis said of the last that failed."""
        batches, calls = [], []
        for user_id, places in users:
            firsts = _first_of_each_id(events, places)
            order, records = _in_order([events[place] for place in firsts])
            batches.append([firsts[number] for number in order])
            calls.append(self._call(user_id, records, now))
        failure = None
        for (_, places), batch, answer in zip(users, batches, await self._script.run(self._redis, calls), strict=True):
            if isinstance(answer, Exception):
                if UNREADABLE in str(answer):
                    for place in places:
                        outcomes[place] = "refused"
                else:
                    failure = answer
                continue
            for place in places:
                outcomes[place] = "duplicate"
            for place, is_new in zip(batch, answer, strict=True):
                if is_new == TAKEN:
                    outcomes[place] = "taken"
        return failure

    def _call(self, user_id: str, batch: bytes, now: float) -> Call:
        rules = self._rules
        return Call(
            (history_key(user_id), event_ids_key(user_id)),
            (
                batch,
                user_hashes([user_id]).astype("<u8").tobytes(),
                rules.limit,
                rules.days * DAY_S,
                int(now // DAY_S),
                ID_DAYS,
                MAX_IDS,
                MAX_BYTES,
                int(rules.keep_repeats),
            ),
        )


def _first_of_each_id(events: Sequence[NewEvent], places: Sequence[int]) -> list[int]:
    first: dict[str, int] = {}
    for place in places:
        first.setdefault(events[place].event_id, place)
    return list(first.values())


def _in_order(events: Sequence[NewEvent]) -> tuple[list[int], bytes]:
    """The order of one user's events as in `service.history.ordering`, and in that order what the script reads."""
    packed: Events = np.empty(len(events), dtype=EVENT)
    packed["item_hash"] = item_hashes((event.domain, event.item_id) for event in events)
    packed["timestamp"] = [event.timestamp for event in events]
    user = np.broadcast_to(user_hashes([events[0].user_id]), len(events))
    time = packed["timestamp"].astype(np.int64)
    order = np.lexsort((tie_hashes(user, packed["item_hash"], time * MICROSECONDS), time))
    records = np.empty(len(events), dtype=RECORD)
    digests = b"".join(blake2b(event.event_id.encode(), digest_size=ID_BYTES).digest() for event in events)
    records["id"] = np.frombuffer(digests, dtype=np.uint8).reshape(-1, ID_BYTES)
    records["is_listed"] = [event.is_listed for event in events]
    records["event"] = packed
    return order.tolist(), records[order].tobytes()


def _forget(write: asyncio.Task[list[Outcome]]) -> None:
    # So that asyncio does not report a failure that nobody waits for any more.
    if not write.cancelled():
        write.exception()
