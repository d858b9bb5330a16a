"""The generator against what it claims: tests of frequencies at fixed seeds, and a slow version of the probabilities."""

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare, norm, spearmanr

from formats.errors import WrongUse
from formats.events import EventSource, IdCodes, read_events
from training.generate import PERIOD, bayes_nll, event_nll, generate, last_items
from training.truth import (
    EVENTS_STREAM,
    GROUP,
    NONE,
    DomainTruth,
    World,
    all_related,
    all_unrelated,
    event_probabilities,
    five_domains,
    group_vectors,
    many_domains,
    next_domain_probabilities,
    next_item_probabilities,
    tables,
)

# At fixed seeds a test passes always or never; this only says how surprising a difference must be.
SURPRISING = 1e-4

SMALL = World(
    (
        DomainTruth("near", 0.9, 0.5, 0.2, items=7, clusters=3),
        DomainTruth("far", 0.0, 0.3, 0.6, items=5, clusters=2),
        DomainTruth("noise", 0.0, 0.2, 0.0, noise=True, items=4, clusters=4),
    ),
    users=GROUP + 10,
    events=(5, 12),
    factors=3,
    sharpness=1.2,
    zipf=0.7,
    seed=3,
)


def one_domain(users=2000, events=(20, 20), sharpness=1.6, zipf=1.0, seed=0, **domain):
    given = {"relatedness": 0.5, "share": 1.0, "sequential": 0.0} | domain
    return World((DomainTruth("only", **given),), users, events, sharpness=sharpness, zipf=zipf, seed=seed)


def agrees(observed, expected):
    """Chi-square test of counts against exact expectations of the same sum."""
    assert np.min(expected) > 5, "too few for the test"
    return chisquare(observed, np.asarray(expected) * np.sum(observed) / np.sum(expected)).pvalue > SURPRISING


def agrees_each(happened, probability):
    """Events with a probability each, given the past: their sum is normal around that of the probabilities."""
    spread = math.sqrt(np.sum(probability * (1 - probability)))
    return 2 * norm.sf(abs(np.sum(happened) - np.sum(probability)) / spread) > SURPRISING


def histories_of(histories):
    """User -> [(domain, item), …], oldest first."""
    found = {}
    for user, domain, item in zip(histories.user, histories.domain, histories.item, strict=True):
        found.setdefault(int(user), []).append((int(domain), int(item)))
    return found


def slow_probability(world, user, past, domain, item):
    """P(item | the next event is in `domain`), of one user after `past`, by the book."""
    fixed = tables(world)
    true = world.domains[domain]
    if true.noise:
        return 1 / true.items
    vector = group_vectors(world, user // GROUP)[user % GROUP, domain]
    likings = [
        math.exp(world.sharpness * sum(vector[f] * fixed.preference_map[f, cluster] for f in range(world.factors)))
        for cluster in range(true.clusters)
    ]
    first = fixed.first_item[domain]
    cluster = fixed.cluster[first : first + true.items].tolist()
    popularity = fixed.popularity[first : first + true.items].tolist()
    mates = [popularity[other] for other in range(true.items) if cluster[other] == cluster[item]]
    rank = 1 + sum(popularity[item] < mate for mate in mates)
    zipf = rank**-world.zipf / sum((1 + place) ** -world.zipf for place in range(len(mates)))
    chosen = likings[cluster[item]] / sum(likings) * zipf
    here = [thing for where, thing in past if where == domain]
    if not here:
        return chosen
    successor = fixed.successor[first + here[-1]] - first
    return true.sequential * (item == successor) + (1 - true.sequential) * chosen


def test_rows_are_events_as_everybody_reads_them(tmp_path):
    world = replace(SMALL, users=300)
    generate(world).table(world).sink_csv(tmp_path / "events.csv")
    rows = read_events(EventSource(tmp_path / "events.csv"), {}, IdCodes())
    assert rows.bad.is_empty()
    assert rows.good["user_id"].unique(maintain_order=True).to_list() == [f"u{n}" for n in range(300)]
    pairs = set(rows.good.select("domain", "item_id").rows())
    assert pairs == {(d.name, f"i{item}") for d in world.domains for item in range(d.items)}


def test_the_numbers_of_events_are_uniform_between_fewest_and_most():
    lengths = np.bincount(generate(SMALL).user)
    assert len(lengths) == SMALL.users
    assert agrees(np.bincount(lengths)[5:], np.full(8, SMALL.users / 8))
    assert lengths.min() == 5


def test_times_rise_within_a_user_and_everybody_lives_through_the_whole_period():
    histories = generate(five_domains(500, seed=1))
    same_user = np.diff(histories.user) == 0
    assert (np.diff(histories.timestamp)[same_user] > 0).all()
    assert histories.timestamp.min() >= PERIOD[0]
    assert histories.timestamp.max() < PERIOD[1]
    # A split by time at the 0.9 quantile: the same share of each part of the users, and nearly all have events after it.
    late = histories.timestamp > np.quantile(histories.timestamp, 0.9)
    assert len(np.unique(histories.user[late])) > 0.95 * 500
    assert agrees(np.bincount(histories.user[late] // 100), np.bincount(histories.user // 100) * 0.1)


def test_times_never_meet_even_where_there_are_hardly_more_of_them_than_events(monkeypatch):
    monkeypatch.setattr("training.generate.PERIOD", (1000, 1070))
    histories = generate(five_domains(500, seed=1))
    assert (np.diff(histories.timestamp)[np.diff(histories.user) == 0] > 0).all()
    assert histories.timestamp.max() < 1070


def test_domains_arrive_by_their_shares_and_stay_with_the_stated_probability():
    world = five_domains(3000, seed=2)
    domain, user = (generate(world).domain, generate(world).user)
    first = np.flatnonzero(np.diff(user, prepend=-1))
    assert agrees(np.bincount(domain[first]), 3000 * world.shares)
    continues = np.flatnonzero(np.diff(user) == 0)
    for last in range(5):
        followers = domain[continues[domain[continues] == last] + 1]
        stated = [0.7 * share + 0.3 * (place == last) for place, share in enumerate([0.07, 0.28, 0.25, 0.15, 0.25])]
        assert agrees(np.bincount(followers, minlength=5), len(followers) * np.array(stated))
        assert next_domain_probabilities(world, np.array([last]))[0] == pytest.approx(stated)
    assert next_domain_probabilities(world, np.array([NONE]))[0] == pytest.approx(world.shares)


def test_the_successor_follows_as_often_as_stated():
    world = one_domain(sharpness=0, zipf=0, sequential=0.35, items=1000)
    histories = generate(world)
    last = last_items(histories)
    known = last != NONE
    follows = tables(world).successor[last[known]] == histories.item[known]
    # Of 1,000 equally likely items, one is the successor by chance.
    assert binomtest(int(follows.sum()), len(follows), 0.35 + 0.65 / 1000).pvalue > SURPRISING


def test_only_the_own_last_item_of_the_same_domain_has_a_successor():
    certain = tuple(replace(domain, sequential=0.0 if domain.noise else 1.0) for domain in SMALL.domains)
    world = replace(SMALL, users=200, domains=certain)
    fixed = tables(world)
    for events in histories_of(generate(world)).values():
        for domain in (0, 1):
            first = fixed.first_item[domain]
            items = [item for where, item in events if where == domain]
            assert all(fixed.successor[first + last] == first + item for last, item in pairwise(items))


@pytest.mark.parametrize("items", [2, 3, 60])
def test_the_successors_are_a_permutation_within_the_domain_without_fixed_points(items):
    world = many_domains(7, 1, seed=items)
    world = replace(world, domains=tuple(replace(d, items=items, clusters=2) for d in world.domains))
    fixed = tables(world)
    numbers = np.arange(7 * items)
    assert sorted(fixed.successor) == numbers.tolist()
    assert (fixed.successor != numbers).all()
    assert (fixed.successor // items == numbers // items).all()


def test_no_cluster_is_liked_by_more_users_than_another():
    fixed = tables(replace(SMALL, factors=9))
    assert np.linalg.norm(fixed.preference_map, axis=0) == pytest.approx([3, 3, 3])


def test_the_number_of_an_item_says_nothing_about_its_cluster_or_popularity():
    for seed in range(5):
        fixed = tables(one_domain(seed=seed))
        assert abs(spearmanr(np.arange(60), fixed.popularity).statistic) < 0.5
        assert np.mean(np.diff(fixed.cluster) == 0) == pytest.approx(1 / 6, abs=0.15)
        assert np.bincount(fixed.cluster).tolist() == [10] * 6


def test_clusters_are_chosen_by_softmax_of_vector_times_map():
    world = one_domain(users=GROUP)
    fixed = tables(world)
    histories = generate(world)
    likings = np.exp(1.6 * group_vectors(world, 0)[:, 0] @ fixed.preference_map)
    preference = likings / likings.sum(1, keepdims=True)
    happened = fixed.cluster[histories.item][:, None] == np.arange(6)
    stated = preference[histories.user]
    # In all, and among the events where it was likely, even or unlikely: a wrong vector would still get the sum right.
    for low, high in [(0, 1), (0, 0.05), (0.05, 0.5), (0.5, 1)]:
        among = (stated >= low) & (stated <= high)
        assert agrees_each(happened[among], stated[among])


def test_items_of_a_cluster_are_popular_by_zipf():
    world = one_domain(zipf=1.3, sharpness=0, items=15, clusters=3)
    counts = np.bincount(generate(world).item)
    cluster = tables(world).cluster
    for number in range(3):
        law = np.arange(1.0, 6.0) ** -1.3
        mine = np.sort(counts[cluster == number])[::-1]
        assert len(mine) == 5
        assert agrees(mine, mine.sum() * law / law.sum())


def test_noise_is_uniform_whatever_came_before():
    histories = generate(SMALL)
    last = last_items(histories)
    for before in (NONE, 0, 3):
        items = histories.item[(histories.domain == 2) & (last == before)]
        assert agrees(np.bincount(items), np.full(4, len(items) / 4))


def test_vectors_are_standard_normal_and_correlate_as_stated():
    world = five_domains(1, seed=4)
    vectors = np.concatenate([group_vectors(world, group) for group in range(4)])
    found = np.einsum("udf,uef->de", vectors, vectors) / (4 * GROUP * 4)
    rho = np.array([0.95, 0.9, 0.6, 0, 0])
    expected = np.outer(rho, rho)
    np.fill_diagonal(expected, 1)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(2 / (4 * GROUP * 4)))


def test_users_of_different_groups_have_nothing_in_common():
    one, other = (group_vectors(SMALL, group).ravel() for group in (0, 1))
    assert abs(np.mean(one * other)) < 4 / math.sqrt(len(one))


def cluster_histograms(world):
    """Share of each cluster in a user's events, per domain, [users, domains, clusters]."""
    histories, fixed = generate(world), tables(world)
    cluster = fixed.cluster[fixed.first_item[histories.domain] + histories.item]
    counts = np.zeros((world.users, len(world.domains), 6))
    np.add.at(counts, (histories.user, histories.domain, cluster), 1)
    return counts / np.maximum(counts.sum(2, keepdims=True), 1)


def test_a_related_domain_says_what_a_user_likes_in_another_and_an_unrelated_one_says_nothing():
    users = 3000
    related, unrelated = all_related(2, users, seed=5), all_unrelated(2, users, seed=5)
    related = replace(related, domains=tuple(replace(d, relatedness=0.95) for d in related.domains))
    for cluster in range(6):
        here, there = cluster_histograms(related)[:, :, cluster].T
        assert spearmanr(here, there).statistic > 0.5
        here, there = cluster_histograms(unrelated)[:, :, cluster].T
        assert spearmanr(here, there).pvalue > SURPRISING


@pytest.mark.parametrize("user", [0, 7, GROUP - 1, GROUP, GROUP + 9])
def test_probabilities_agree_with_a_slow_version_all_along_a_history(user):
    histories = generate(SMALL)
    nll = event_nll(SMALL, histories)[histories.user == user]
    past = []
    for place, (domain, item) in enumerate(histories_of(histories)[user]):
        assert nll[place] == pytest.approx(-math.log(slow_probability(SMALL, user, past, domain, item)))
        for other, true in enumerate(SMALL.domains):
            last = [thing for where, thing in past if where == other][-1:] or [NONE]
            table = next_item_probabilities(SMALL, other, np.array([user]), np.array(last))
            slow = [slow_probability(SMALL, user, past, other, thing) for thing in range(true.items)]
            assert table[0] == pytest.approx(slow)
        past.append((domain, item))


def test_probabilities_sum_to_one_and_those_of_single_events_are_taken_from_them():
    random = np.random.default_rng(0)
    world = many_domains(10, 3 * GROUP, seed=6)
    user, last = random.integers(0, world.users, 50), random.integers(-1, 60, 50)
    for domain in range(10):
        table = next_item_probabilities(world, domain, user, last)
        assert table.shape == (50, 60)
        assert table.min() >= 0
        assert table.sum(1) == pytest.approx(np.ones(50))
        for item in (0, 17, 59):
            single = event_probabilities(world, user, np.full(50, domain), last, np.full(50, item))
            assert single.tolist() == table[:, item].tolist()


def test_the_next_item_comes_as_often_as_its_probability_says(monkeypatch):
    # Groups of two users, so that one of them can live long.
    monkeypatch.setattr("training.truth.GROUP", 2)
    monkeypatch.setattr("training.generate.GROUP", 2)
    world = replace(SMALL, users=3, events=(30_000, 30_000), sharpness=0.5)
    histories = generate(world)
    last = last_items(histories)
    for user in range(3):
        for domain, true in enumerate(world.domains):
            here = (histories.user == user) & (histories.domain == domain)
            for before in range(true.items):
                items = histories.item[here & (last == before)]
                stated = next_item_probabilities(world, domain, np.array([user]), np.array([before]))[0]
                assert agrees(np.bincount(items, minlength=true.items), len(items) * stated)


def test_the_floor_is_the_mean_entropy_of_the_true_probabilities():
    world = replace(SMALL, users=1500)
    histories = generate(world)
    last, nll = last_items(histories), event_nll(world, histories)
    for domain, floor in enumerate(bayes_nll(world, histories)):
        here = histories.domain == domain
        table = next_item_probabilities(world, domain, histories.user[here], last[here])
        surprise = np.log(table, out=np.zeros_like(table), where=table > 0)
        entropy = -(table * surprise).sum(1)
        spread = np.sqrt((table * surprise**2).sum(1) - entropy**2)
        assert floor == pytest.approx(nll[here].mean())
        error = math.sqrt((spread**2).sum()) / here.sum()
        assert floor == pytest.approx(entropy.mean(), abs=4 * error + 1e-9)


def test_whoever_knows_less_than_the_users_vector_predicts_worse():
    world = five_domains(4000, seed=7)
    histories = generate(world)
    floor = bayes_nll(world, histories)
    for domain in range(4):
        counts = np.bincount(histories.item[histories.domain == domain])
        share = counts / counts.sum()
        popularity_nll = -(share * np.log(share)).sum()
        assert floor[domain] < popularity_nll - 0.3
    assert floor[4] == pytest.approx(math.log(60))


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (one_domain(users=50, sharpness=0, zipf=0), math.log(60)),
        (one_domain(users=50, events=(1, 1), sharpness=0, zipf=0, sequential=1), math.log(60)),
        (one_domain(users=50, events=(4, 4), sharpness=0, zipf=0, sequential=1), math.log(60) / 4),
    ],
)
def test_floors_that_can_be_computed_by_hand(world, expected):
    assert bayes_nll(world, generate(world)) == pytest.approx([expected])


def test_a_domain_without_events_has_no_floor():
    world = World((DomainTruth("all", 0, 1 - 1e-12, 0), DomainTruth("never", 0, 1e-12, 0)), users=20)
    assert np.isnan(bayes_nll(world, generate(world))).tolist() == [False, True]


def columns(histories):
    return [getattr(histories, name).tolist() for name in ("user", "domain", "item", "timestamp")]


def test_the_seed_decides_everything():
    world = five_domains(50, seed=8)
    assert columns(generate(world)) == columns(generate(world))
    for column, other in zip(columns(generate(world))[1:], columns(generate(replace(world, seed=9)))[1:], strict=True):
        assert column != other


def test_a_user_does_not_depend_on_how_many_there_are():
    many, few = generate(five_domains(GROUP + 100, seed=8)), generate(five_domains(60, seed=8))
    assert columns(many.part(0, len(few))) == columns(few)
    assert many.user[len(few)] == 60


@pytest.mark.parametrize("drawn", [0.0, np.nextafter(1, 0)])
def test_the_ends_of_the_random_numbers_stay_within_domain_and_cluster(drawn, monkeypatch):
    class Ends:
        """Always the same end of [0, 1), where rounding may lead one place too far."""

        integers = np.random.default_rng(0).integers

        def random(self, shape):
            return np.full(shape, drawn)

    real = World.stream
    monkeypatch.setattr(World, "stream", lambda self, *key: Ends() if key[0] == EVENTS_STREAM else real(self, *key))
    # The first and the last domain are drawn; the last one has fewer clusters than others.
    sparse, *others = five_domains(1, 1).domains
    world = World((*(replace(other, clusters=8) for other in others), sparse), users=GROUP)
    histories = generate(world)
    user, domain, item = histories.user, histories.domain, histories.item
    assert item.min() >= 0
    assert item.max() < 60
    assert (event_probabilities(world, user, domain, last_items(histories), item) > 0).all()


def test_the_five_domains():
    world = five_domains(10, seed=1)
    assert [(d.name, d.relatedness, d.share, d.sequential, d.kind) for d in world.domains] == [
        ("related-sparse", 0.95, 0.07, 0, "related"),
        ("related-dense", 0.9, 0.28, 0.1, "related"),
        ("half-related", 0.6, 0.25, 0.1, "related"),
        ("unrelated-sequential", 0, 0.15, 0.6, "unrelated"),
        ("noise", 0, 0.25, 0, "noise"),
    ]
    assert (world.users, world.events, world.seed) == (10, (30, 60), 1)


@pytest.mark.parametrize("domains", [1, 5, 13, 100])
def test_many_domains_take_the_five_kinds_in_turn(domains):
    world = many_domains(domains, 10, seed=1)
    five = five_domains(10, seed=1).domains
    assert len(world.domains) == domains
    for number, domain in enumerate(world.domains):
        kind = five[number % 5]
        assert domain.name == f"{kind.name}-{number + 1}"
        assert (domain.relatedness, domain.sequential, domain.noise) == (kind.relatedness, kind.sequential, kind.noise)
    dense = {domain.share for domain in world.domains if not domain.name.startswith("related-sparse")}
    assert len(dense) <= 1
    assert all(world.domains[0].share == pytest.approx(share / 2) for share in dense)


def test_the_controls_differ_in_relatedness_alone():
    related, unrelated = all_related(3, 10, seed=1), all_unrelated(3, 10, seed=1)
    assert [d.relatedness for d in related.domains] == [0.9] * 3
    assert [d.relatedness for d in unrelated.domains] == [0] * 3
    for one, other in zip(related.domains, unrelated.domains, strict=True):
        assert (one.share, one.sequential, one.items) == (other.share, other.sequential, other.items)
        assert one.share == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, "needs a name"),
        ({"relatedness": -0.1}, "relatedness is from 0 to 1"),
        ({"relatedness": math.nan}, "relatedness is from 0 to 1"),
        ({"share": 0}, "share is above 0"),
        ({"sequential": 1.1}, "sequential is from 0 to 1"),
        ({"items": 0, "clusters": 0}, "items is at least 1"),
        ({"clusters": 0}, "clusters is from 1"),
        ({"clusters": 61}, "clusters is from 1"),
        ({"items": 1, "clusters": 1, "sequential": 0.5}, "at least 2 items"),
        ({"noise": True}, "noise has relatedness 0"),
        ({"noise": True, "relatedness": 0, "sequential": 0.1}, "noise has relatedness 0"),
    ],
)
def test_a_domain_that_cannot_be_is_refused(change, message):
    with pytest.raises(WrongUse, match=message):
        DomainTruth(**{"name": "d", "relatedness": 0.5, "share": 0.5, "sequential": 0.0} | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domains": ()}, "at least one domain"),
        ({"domains": (SMALL.domains[0], SMALL.domains[0])}, "a name of its own"),
        ({"domains": SMALL.domains[:2]}, r"sum to 0\.8, not to 1"),
        ({"users": 0}, "users is at least 1"),
        ({"events": (0, 5)}, "events is the fewest and the most"),
        ({"events": (6, 5)}, "events is the fewest and the most"),
        ({"factors": 0}, "factors is at least 1"),
        ({"sharpness": math.inf}, "sharpness is at least 0"),
        ({"zipf": -1}, "zipf is at least 0"),
        ({"seed": -1}, "seed is at least 0"),
    ],
)
def test_a_world_that_cannot_be_is_refused(change, message):
    with pytest.raises(WrongUse, match=message):
        replace(SMALL, **change)
