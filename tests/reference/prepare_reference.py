"""`prepare`, slow and obvious: lists of events, one user and one item at a time."""

from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

BITS = (1 << 64) - 1
PARTS = ("train", "context", "validation", "test")


class Event(NamedTuple):
    user: str
    domain: str
    item: str
    time: int  # microseconds


@dataclass
class Reference:
    """parts: part -> user -> [(item_index, domain number, time)]; users: in order of number; items: (domain, item)."""

    parts: dict = field(default_factory=dict)
    users: list = field(default_factory=list)
    items: list = field(default_factory=list)
    popularity: list = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)
    rounds: list = field(default_factory=list)
    tied: float = 0.0


def prepare_reference(events, *, repeats, period_of, min_item_events, min_user_events):
    """period_of: events of one user in order -> "before", "validation" or "test" for each."""
    result = Reference()
    histories = {}
    for event in sorted(events, key=lambda event: (event.user, event.time, tie_hash(event))):
        history = histories.setdefault(event.user, [])
        same = [old for old in history if (old.domain, old.item) == (event.domain, event.item)]
        if any(old.time == event.time for old in same) or (same and repeats == "drop"):
            result.dropped["repeat", event.domain] += 1
        else:
            history.append(event)
    kept = [event for history in histories.values() for event in history]
    at = Counter((event.user, event.time) for event in kept)
    result.tied = sum(at[event.user, event.time] > 1 for event in kept) / len(kept)

    period = {}
    for history in histories.values():
        period |= dict(zip(history, period_of(history), strict=True))
    training, lost_users = _thresholds(result, kept, period, min_item_events, min_user_events)

    popularity = Counter((event.domain, event.item) for event in training)
    result.items = sorted(popularity, key=lambda item: (item[0], -popularity[item], item[1]))
    result.popularity = [popularity[item] for item in result.items]
    domains = sorted({domain for domain, _ in result.items})

    part_of = dict.fromkeys(training, "train")
    for event in kept:
        if period[event] != "before":
            if event.domain in domains:
                part_of[event] = period[event]
            else:
                result.dropped["domain without training items", event.domain] += 1
    come_back = {event.user for event, part in part_of.items() if part in ("validation", "test")}
    for event in lost_users:
        if event.user in come_back and (event.domain, event.item) in popularity:
            part_of[event] = "context"
        else:
            result.dropped["user below threshold", event.domain] += 1

    index = {item: number for number, item in enumerate(result.items, 1)}
    for part in PARTS:
        table = {}
        for event in kept:  # in order of user, time, hash
            if part_of.get(event) == part:
                encoded = (index.get((event.domain, event.item), 0), 1 + domains.index(event.domain), event.time)
                table.setdefault(event.user, []).append(encoded)
        result.parts[part] = table
        result.users += sorted(set(table) - set(result.users))
    return result


def _thresholds(result, kept, period, min_item_events, min_user_events):
    training = [event for event in kept if period[event] == "before"]
    lost_users = []
    while True:
        per_item = Counter((event.domain, event.item) for event in training)
        rare = [event for event in training if per_item[event.domain, event.item] < min_item_events]
        training = [event for event in training if event not in rare]
        per_user = Counter(event.user for event in training)
        lost = [event for event in training if per_user[event.user] < min_user_events]
        training = [event for event in training if event not in lost]
        if not rare and not lost:
            return training, lost_users
        items = len({(event.domain, event.item) for event in rare})
        result.rounds.append((items, len(rare), len({event.user for event in lost}), len(lost)))
        lost_users += lost
        for event in rare:
            result.dropped["item below threshold", event.domain] += 1


def temporal(validation_from, test_from):
    def period(event):
        if event.time < validation_from:
            return "before"
        return "validation" if event.time < test_from else "test"

    return lambda history: [period(event) for event in history]


def leave_one_out(history):
    periods = [*["before"] * len(history), "validation", "test"]
    return periods[-len(history) :]


def tie_hash(event):
    name = f"{len(event.domain)}:{event.domain}{event.item}"
    return _splitmix(_blake(event.user) ^ _blake(name) ^ _splitmix(event.time & BITS))


def _blake(text):
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _splitmix(bits):
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & BITS
    return bits ^ (bits >> 31)
