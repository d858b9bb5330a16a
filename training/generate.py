"""Histories drawn from a world with known truth, and how well they can be predicted at best."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.truth import (
    EVENTS_STREAM,
    GROUP,
    NONE,
    REDRAW,
    Floats,
    Tables,
    World,
    event_probabilities,
    group_preferences,
    tables,
)

# All users are active in all of this period, so that a split by time cuts every history: 2024, in seconds since 1970.
PERIOD: Final = (1_704_067_200, 1_735_689_600)


@dataclass(frozen=True)
class Histories:
    """Events, user by user, oldest first.

    user, domain: numbers, from 0, [events].
    item: number within its domain, from 0, [events].
    timestamp: seconds since 1970, strictly increasing within a user, [events].
    """

    user: NDArray[np.int32]
    domain: NDArray[np.int32]
    item: NDArray[np.int32]
    timestamp: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def part(self, start: int, end: int) -> "Histories":
        """The events from `start` to before `end`."""
        rows = slice(start, end)
        return Histories(self.user[rows], self.domain[rows], self.item[rows], self.timestamp[rows])

    def table(self, world: World) -> pl.LazyFrame:
        """The events as `formats.events` reads them: user 7 is `u7`, item 3 of a domain is `i3`."""
        numbers = pl.LazyFrame({name: getattr(self, name) for name in ("user", "domain", "item", "timestamp")})
        names = dict(enumerate(domain.name for domain in world.domains))
        return numbers.select(
            user_id=pl.format("u{}", "user"),
            item_id=pl.format("i{}", "item"),
            domain=pl.col("domain").replace_strict(names, return_dtype=pl.String),
            timestamp="timestamp",
        )


def generate(world: World, progress: Callable[[str], None] = lambda _: None) -> Histories:
    """Draw the histories of all users; the same world gives the same histories.

    It takes about 20 bytes of memory per event, twice that for a moment at the end.
    """
    fixed = tables(world)
    parts = []
    for group in range(-(-world.users // GROUP)):
        progress(f"{group * GROUP:,} of {world.users:,} users")
        parts.append(_group_histories(world, fixed, group))
    user, domain, item, timestamp = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Histories(user, domain, item, timestamp)


def last_items(histories: Histories) -> NDArray[np.int32]:
    """The item before each event, of the same user in the same domain; NONE where there is none, [events]."""
    by_domain = np.lexsort((histories.domain, histories.user))
    user, domain, item = (column[by_domain] for column in (histories.user, histories.domain, histories.item))
    continues = (user[1:] == user[:-1]) & (domain[1:] == domain[:-1])
    before = np.full(len(histories), NONE, dtype=np.int32)
    before[by_domain[1:][continues]] = item[:-1][continues]
    return before


def event_nll(world: World, histories: Histories) -> Floats:
    """-log of the exact probability of each event's item, given its domain and the user's vector and past, nats [events].

    Args:
        histories: whole, as generated.
    """
    nll = np.empty(len(histories))
    # One group of users at a time, since the preferences of all of them would not fit into memory.
    for start, end in pairwise(np.searchsorted(histories.user, np.arange(0, world.users + GROUP, GROUP))):
        part = histories.part(start, end)
        nll[start:end] = -np.log(event_probabilities(world, part.user, part.domain, last_items(part), part.item))
    return nll


def bayes_nll(world: World, histories: Histories) -> Floats:
    """Mean `event_nll` of each domain, NaN where it has no event, nats [domains].

    The floor of one who knows the users' vectors, and so a lower bound, in expectation, of any learner's NLL on these events.
    """
    counts = np.bincount(histories.domain, minlength=len(world.domains))
    sums = np.bincount(histories.domain, event_nll(world, histories), minlength=len(world.domains))
    with np.errstate(invalid="ignore"):
        return sums / counts


def _group_histories(world: World, fixed: Tables, group: int) -> tuple[NDArray[np.integer], ...]:
    """User, domain, item and timestamp of the events of one group's users, those of them that the world has."""
    random = world.stream(EVENTS_STREAM, group)
    fewest, most = world.events
    lengths = random.integers(fewest, most, GROUP, endpoint=True)
    domain = _arrivals(world, random)
    item = _items(world, fixed, domain, group, random) - fixed.first_item[domain]
    timestamp = _timestamps(lengths, most, random)
    user = group * GROUP + np.arange(GROUP)
    happens = (np.arange(most) < lengths[:, None]) & (user < world.users)[:, None]
    return (
        np.broadcast_to(user[:, None], happens.shape)[happens].astype(np.int32),
        domain.T[happens].astype(np.int32),
        item.T[happens].astype(np.int32),
        timestamp[happens],
    )


def _arrivals(world: World, random: np.random.Generator) -> NDArray[np.int64]:
    """The domain of each step, [steps, GROUP]."""
    steps = world.events[1]
    redrawn = random.random((steps, GROUP)) < REDRAW
    # The last sum is left out: it may fall short of 1 by rounding.
    drawn = np.searchsorted(np.cumsum(world.shares)[:-1], random.random((steps, GROUP)), side="right")
    newest = np.maximum.accumulate(np.where(redrawn, np.arange(steps)[:, None], 0), axis=0)
    return np.take_along_axis(drawn, newest, axis=0)


def _items(
    world: World, fixed: Tables, domain: NDArray[np.int64], group: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """The item of each step, numbered through all domains, [steps, GROUP]."""
    follows = random.random(domain.shape) < fixed.sequential[domain]
    item = _preferred(world, fixed, domain, group, random)
    last = np.full((GROUP, len(world.domains)), NONE)
    users = np.arange(GROUP)
    for here, chosen, follow in zip(domain, item, follows, strict=True):
        before = last[users, here]
        np.copyto(chosen, fixed.successor[before], where=follow & (before != NONE))
        last[users, here] = chosen
    return item


def _preferred(
    world: World, fixed: Tables, domain: NDArray[np.int64], group: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """An item by cluster preference and popularity, without a look at the last one, [steps, GROUP]."""
    # Clusters numbered through all domains.
    first_cluster = np.cumsum(world.clusters) - world.clusters
    cluster_of = np.repeat(first_cluster, np.diff(fixed.first_item)) + fixed.cluster
    by_cluster = np.argsort(cluster_of, kind="stable")
    first_place = np.searchsorted(cluster_of[by_cluster], np.arange(cluster_of.max() + 2))
    # Each cluster's popularities sum to 1, so this is the cluster's number and the distribution within it.
    cumulative = np.cumsum(fixed.popularity[by_cluster])
    upper = np.cumsum(group_preferences(world, fixed, group), axis=-1)[..., :-1]
    item = np.empty_like(domain)
    for step, here in enumerate(domain):
        chosen = (random.random(GROUP)[:, None] >= upper[np.arange(GROUP), here]).sum(1)
        cluster = first_cluster[here] + np.minimum(chosen, world.clusters[here] - 1)
        place = np.searchsorted(cumulative, cluster + random.random(GROUP), side="right")
        # Rounding must not lead into the neighbouring cluster.
        item[step] = by_cluster[np.clip(place, first_place[cluster], first_place[cluster + 1] - 1)]
    return item


def _timestamps(lengths: NDArray[np.int64], steps: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Uniform times within PERIOD, sorted within a user and never equal; the first `lengths` count, [GROUP, steps]."""
    start, end = PERIOD
    times = random.integers(start, end - steps, (GROUP, steps))
    times[np.arange(steps) >= lengths[:, None]] = end
    times.sort(axis=1)
    return times + np.arange(steps)
