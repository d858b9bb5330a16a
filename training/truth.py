"""Worlds with known truth: what a seed fixes in them, and the exact probabilities of what a user does next.

The formulas and the five-domain setting stand in docs/known-truth.md.
"""

import math
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from formats.errors import WrongUse

# Stands for the last item or domain of a user who has none yet.
NONE: Final = -1
# At each step the domain is drawn from the shares with this probability; otherwise the user stays.
REDRAW: Final = 0.7
# Users are drawn in groups of this size, each group from a stream of its own and always whole: a user's vectors and
# events are the same however many users a world has.
GROUP: Final = 4096
_TABLES_STREAM, _VECTORS_STREAM, EVENTS_STREAM = range(3)

Ints = NDArray[np.int64] | NDArray[np.int32]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DomainTruth:
    """What is true of one domain.

    relatedness: rho, 0 to 1, the correlation of the user's vector here with the one that all domains share.
    share: of all events, in the long run; the shares of a world sum to 1.
    sequential: m, the probability that the next item is the fixed successor of the user's last one here.
    noise: items are uniform; there are no clusters, and relatedness and sequential must be 0.
    """

    name: str
    relatedness: float
    share: float
    sequential: float
    noise: bool = False
    items: int = 60
    clusters: int = 6

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the domain and the field.
        """
        _refuse_first(
            (not self.name, "a domain needs a name"),
            (not 0 <= self.relatedness <= 1, f"domain {self.name}: relatedness is from 0 to 1"),
            (not 0 < self.share <= 1, f"domain {self.name}: share is above 0 and at most 1"),
            (not 0 <= self.sequential <= 1, f"domain {self.name}: sequential is from 0 to 1"),
            (self.items < 1, f"domain {self.name}: items is at least 1"),
            (not 1 <= self.clusters <= self.items, f"domain {self.name}: clusters is from 1 to the number of items"),
            (self.sequential > 0 and self.items < 2, f"domain {self.name}: a sequential domain has at least 2 items"),
            (
                self.noise and (self.relatedness, self.sequential) != (0, 0),
                f"domain {self.name}: noise has relatedness 0 and sequential 0",
            ),
        )

    @property
    def kind(self) -> str:
        """What other domains say about this one, in a word."""
        if self.noise:
            return "noise"
        return "related" if self.relatedness > 0 else "unrelated"


@dataclass(frozen=True)
class World:
    """Everything that decides what is generated.

    events: fewest and most of one user; every number between is equally likely.
    factors: length of the users' vectors.
    sharpness: c, how much a user's vector decides; 0 makes all clusters equally likely.
    zipf: exponent of the items' popularity within a cluster; 0 makes them equally likely.
    """

    domains: tuple[DomainTruth, ...]
    users: int
    events: tuple[int, int] = (30, 60)
    factors: int = 4
    sharpness: float = 1.6
    zipf: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        names = [domain.name for domain in self.domains]
        shares = math.fsum(domain.share for domain in self.domains)
        _refuse_first(
            (not names, "a world has at least one domain"),
            (len(set(names)) < len(names), "every domain of a world has a name of its own"),
            (not math.isclose(shares, 1, abs_tol=1e-9), f"the shares of all domains sum to {shares:g}, not to 1"),
            (self.users < 1, "users is at least 1"),
            (not 1 <= self.events[0] <= self.events[1], "events is the fewest and the most of a user, from 1"),
            (self.factors < 1, "factors is at least 1"),
            (not 0 <= self.sharpness < math.inf, "sharpness is at least 0"),
            (not 0 <= self.zipf < math.inf, "zipf is at least 0"),
            (self.seed < 0, "seed is at least 0"),
        )

    @property
    def clusters(self) -> NDArray[np.int64]:
        """How many clusters each domain uses, [domains]; noise is one cluster of equally likely items."""
        return np.array([1 if domain.noise else domain.clusters for domain in self.domains])

    @property
    def shares(self) -> Floats:
        """[domains]."""
        return np.array([domain.share for domain in self.domains])

    def stream(self, *key: int) -> np.random.Generator:
        """The random numbers of one purpose, independent of those of every other key."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def _refuse_first(*problems: tuple[bool, str]) -> None:
    for present, line in problems:
        if present:
            raise WrongUse(line)


_RELATED_SPARSE: Final = DomainTruth("related-sparse", relatedness=0.95, share=0.07, sequential=0)
_RELATED_DENSE: Final = DomainTruth("related-dense", relatedness=0.9, share=0.28, sequential=0.1)
_HALF_RELATED: Final = DomainTruth("half-related", relatedness=0.6, share=0.25, sequential=0.1)
_UNRELATED: Final = DomainTruth("unrelated-sequential", relatedness=0, share=0.15, sequential=0.6)
_NOISE: Final = DomainTruth("noise", relatedness=0, share=0.25, sequential=0, noise=True)
_FIVE: Final = (_RELATED_SPARSE, _RELATED_DENSE, _HALF_RELATED, _UNRELATED, _NOISE)


def five_domains(users: int, seed: int) -> World:
    """One domain of each kind: where cross-domain learning helps, where it hurts, and where nothing can be learnt."""
    return World(_FIVE, users, seed=seed)


def all_related(domains: int, users: int, seed: int) -> World:
    """Equal domains with relatedness 0.9: a control in which no domain should be harmed."""
    return World(_equal_domains("related", 0.9, domains), users, seed=seed)


def all_unrelated(domains: int, users: int, seed: int) -> World:
    """The same with relatedness 0: a control in which no domain can gain from another."""
    return World(_equal_domains("unrelated", 0.0, domains), users, seed=seed)


def many_domains(domains: int, users: int, seed: int) -> World:
    """The five kinds in turn, all with the same share but the sparse one, which has half of it."""
    kinds = list(islice(cycle(_FIVE), domains))
    weights = [0.5 if kind is _RELATED_SPARSE else 1.0 for kind in kinds]
    numbered = tuple(
        DomainTruth(f"{kind.name}-{number}", kind.relatedness, weight / sum(weights), kind.sequential, kind.noise)
        for number, (kind, weight) in enumerate(zip(kinds, weights, strict=True), start=1)
    )
    return World(numbered, users, seed=seed)


def _equal_domains(name: str, relatedness: float, domains: int) -> tuple[DomainTruth, ...]:
    return tuple(DomainTruth(f"{name}-{number + 1}", relatedness, 1 / domains, 0.1) for number in range(domains))


@dataclass(frozen=True)
class Tables:
    """What the seed fixes for all users. Items are numbered through all domains here, domain by domain.

    preference_map: W, one direction per cluster, the same in all domains, [factors, clusters].
    first_item: number of each domain's first item, and the number of all items at the end, [domains + 1].
    cluster: of each item, within its domain, [items].
    popularity: probability of each item within its cluster, [items].
    successor: the item that follows each item, of the same domain and never itself, [items].
    sequential: m of each domain, [domains].
    """

    preference_map: Floats
    first_item: NDArray[np.int64]
    cluster: NDArray[np.int64]
    popularity: Floats
    successor: NDArray[np.int64]
    sequential: Floats


def tables(world: World) -> Tables:
    """Draw what the seed fixes for all users."""
    random = world.stream(_TABLES_STREAM)
    directions = random.standard_normal((world.factors, int(world.clusters.max())))
    first_item = np.cumsum([0, *(domain.items for domain in world.domains)])
    parts = [_domain_tables(domain, world, random) for domain in world.domains]
    return Tables(
        # Of equal length: no cluster is liked by more users than another, and it does not depend on the seed how sharp
        # preferences are. The length is the one that standard normal entries have on average.
        preference_map=math.sqrt(world.factors) * directions / np.linalg.norm(directions, axis=0),
        first_item=first_item,
        cluster=np.concatenate([cluster for cluster, _, _ in parts]),
        popularity=np.concatenate([popularity for _, popularity, _ in parts]),
        successor=np.concatenate(
            [first + successor for first, (_, _, successor) in zip(first_item, parts, strict=False)]
        ),
        sequential=np.array([domain.sequential for domain in world.domains]),
    )


def _domain_tables(
    domain: DomainTruth, world: World, random: np.random.Generator
) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
    """Cluster, popularity and successor of each item of one domain, [items] each."""
    clusters, zipf = (1, 0.0) if domain.noise else (domain.clusters, world.zipf)
    rank, in_turn = np.divmod(np.arange(domain.items), clusters)
    weight = (rank + 1.0) ** -zipf
    # A random order, so that an item's number says nothing about its cluster or its popularity.
    place = random.permutation(domain.items)
    # One ring through all items is a permutation without fixed points.
    ring = random.permutation(domain.items)
    successor = np.empty_like(ring)
    successor[ring] = np.roll(ring, -1)
    return in_turn[place], (weight / np.bincount(in_turn, weight)[in_turn])[place], successor


def group_vectors(world: World, group: int) -> Floats:
    """The vectors of the users from GROUP · group on: rho_d z + sqrt(1 - rho_d²) eps, [GROUP, domains, factors]."""
    random = world.stream(_VECTORS_STREAM, group)
    shared = random.standard_normal((GROUP, 1, world.factors))
    own = random.standard_normal((GROUP, len(world.domains), world.factors))
    relatedness = np.array([domain.relatedness for domain in world.domains])[:, None]
    vectors: Floats = relatedness * shared + np.sqrt(1 - relatedness**2) * own
    return vectors


def group_preferences(world: World, fixed: Tables, group: int) -> Floats:
    """Softmax(c · vector · W) of these users, 0 beyond the clusters of a domain, [GROUP, domains, clusters]."""
    logits = world.sharpness * (group_vectors(world, group) @ fixed.preference_map)
    unused = np.arange(logits.shape[-1]) >= world.clusters[:, None]
    logits = np.where(unused, -np.inf, logits)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    preferences: Floats = weights / weights.sum(-1, keepdims=True)
    return preferences


def next_item_probabilities(world: World, domain: int, user: Ints, last_item: Ints) -> Floats:
    """The exact probability of every item of a domain, given that the user's next event is in this domain.

    The user's vector is known here. So it is the Bayes-optimal prediction of one who knows it, and no learner, who has
    to infer it, is better in expectation.

    Args:
        domain: position in `world.domains`.
        user: [cases].
        last_item: of the user in this domain, numbered from 0 within it; NONE before the first, [cases].
    Returns:
        [cases, items of the domain]; rows sum to 1.
    """
    items = np.arange(world.domains[domain].items)
    cases = (len(user), len(items))
    return _item_probabilities(world, user, np.full(len(user), domain), last_item, np.broadcast_to(items, cases))


def event_probabilities(world: World, user: Ints, domain: Ints, last_item: Ints, item: Ints) -> Floats:
    """The same of one item per case, in domains of their own, [cases].

    Args:
        user, domain: [cases].
        last_item, item: numbered from 0 within the domain, [cases].
    """
    return _item_probabilities(world, user, domain, last_item, item[:, None])[:, 0]


def next_domain_probabilities(world: World, last_domain: Ints) -> Floats:
    """The exact probability of every domain, given that of the user's last event (NONE before the first).

    Args:
        last_domain: [cases].
    Returns:
        [cases, domains]. Times `next_item_probabilities` it is the probability of an item among those of all domains.
    """
    stays = np.where(last_domain == NONE, 0, 1 - REDRAW)[:, None]
    here = last_domain[:, None] == np.arange(len(world.domains))
    probabilities: Floats = stays * here + (1 - stays) * world.shares
    return probabilities


def _item_probabilities(world: World, user: Ints, domain: Ints, last_item: Ints, item: Ints) -> Floats:
    """[cases, items], of items [cases, items] that are numbered from 0 within the domain."""
    fixed = tables(world)
    first = fixed.first_item[domain]
    numbered = first[:, None] + item
    preference = _preferences_of(world, fixed, user, domain)
    chosen = np.take_along_axis(preference, fixed.cluster[numbered], axis=1) * fixed.popularity[numbered]
    follows = np.where(last_item == NONE, 0, fixed.sequential[domain])[:, None]
    # Where there is no last item this looks up any other: it counts with probability 0.
    is_successor = fixed.successor[first + last_item][:, None] == numbered
    probabilities: Floats = follows * is_successor + (1 - follows) * chosen
    return probabilities


def _preferences_of(world: World, fixed: Tables, user: Ints, domain: Ints) -> Floats:
    """Cluster preferences of users in a domain each, [cases, clusters]."""
    preferences = np.empty((len(user), fixed.preference_map.shape[1]))
    for group in np.unique(user // GROUP):
        here = np.flatnonzero(user // GROUP == group)
        preferences[here] = group_preferences(world, fixed, int(group))[user[here] % GROUP, domain[here]]
    return preferences
