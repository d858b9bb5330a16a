"""What the service answers, as frozen objects."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One recommended item. rank: from 1. title: where the bundle has one."""

    item_id: str
    score: float
    rank: int
    title: str | None = None


@dataclass(frozen=True)
class Assignment:
    """The experiment that an answer is part of."""

    key: str
    variant: str
    reason: str


@dataclass(frozen=True)
class Recommendation:
    """The best items per domain for one user.

    source: `model`, `popularity` (no usable history) or `degraded` (history store or model failed).
    missing_ids: ids of the request that the model does not know. domains: each best first.
    """

    recommendation_id: str
    user_id: str
    model_version: str
    source: str
    domains: Mapping[str, tuple[Item, ...]]
    missing_ids: tuple[str, ...] = ()
    experiment: Assignment | None = None


@dataclass(frozen=True)
class Recommendations:
    """Answers to a batch, in the order of its requests."""

    results: tuple[Recommendation, ...]


@dataclass(frozen=True)
class Rejected:
    """An event that was not taken: its place in the call, from 0, and why."""

    index: int
    reason: str


@dataclass(frozen=True)
class Taken:
    """What became of a call's events; `duplicates` had been taken before."""

    accepted: int
    duplicates: int
    rejected: tuple[Rejected, ...] = ()


@dataclass(frozen=True)
class Similar:
    """The items nearest to one, per domain, nearest first."""

    domain: str
    item_id: str
    model_version: str
    domains: Mapping[str, tuple[Item, ...]]


@dataclass(frozen=True)
class PastEvent:
    """One event of a stored history. domain, item_id: None where the served model does not know the item.

    timestamp: seconds since 1970. title: where the bundle has one.
    """

    timestamp: float
    domain: str | None = None
    item_id: str | None = None
    title: str | None = None


@dataclass(frozen=True)
class History:
    """What is stored of a user's past. events: oldest first. older_items: how many are only known as seen before those."""

    user_id: str
    events: tuple[PastEvent, ...]
    older_items: int = 0


@dataclass(frozen=True)
class Erased:
    """What became of a user. erased: whether there was anything; False too if an attempt before has erased it."""

    user_id: str
    erased: bool


@dataclass(frozen=True)
class ItemSet:
    """An item's state from now on. categories: None: those of the bundle. known: whether the served model has the item."""

    domain: str
    item_id: str
    available: bool
    categories: tuple[str, ...] | None
    known: bool


@dataclass(frozen=True)
class Model:
    """One bundle that the service has.

    state: `active`, `previous` (comes back with a roll-back), `available` or `damaged`. problem: why it was refused or what is
    damaged. created_at: ISO 8601. domains: items per domain. mixture: weights per domain, where it serves one.
    """

    model_version: str
    state: str
    problem: str | None = None
    created_at: str | None = None
    domains: Mapping[str, int] | None = None
    mixture: Mapping[str, Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Models:
    """The bundles that the service has, and which one answers."""

    active: str
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Activated:
    """Which bundle answers from now on, and which did before."""

    active: str
    before: str
