"""The weights of the mixture: what is chosen, for which domains, and the file that keeps them."""

import itertools
import json
import math
import os

import numpy as np
import pytest

import training.mixture
from formats.errors import WorkFailed
from tests.reference.cases import CATALOGUE, SIZES, cases_of, random_cases
from tests.reference.ranks import mid_rank
from training.metrics import ndcg_at_k
from training.mixture import GRID, MIXTURE, MixtureScorer, best_weights, fit_mixture, read_mixture, write_mixture
from training.ranking import rank_cases

DOMAINS = ("Books", "Games", "Toys")
NAMES = ("one", "two", "three")


def random_shares(members, cases=40, candidates=30, seed=0, target_among_first=True):
    """Shares that add up to 1 with the target's, [members, cases, candidates] and [members, cases]."""
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.full(candidates + 1, 0.3), (members, cases)).astype(np.float32)
    if target_among_first:  # each member knows some targets well
        known = random.random((members, cases)) < 0.4
        shares[..., 0] = np.where(known, shares.max(axis=-1) * 0.9, shares[..., 0])
    return shares[..., 1:], shares[..., 0]


def slow_ndcg(shares, weights):
    """NDCG@10 by loops over cases and candidates."""
    values = []
    for candidates, targets in shares:
        for case in range(candidates.shape[1]):
            own = sum(weight * float(targets[m, case]) for m, weight in enumerate(weights))
            others = [
                sum(weight * float(candidates[m, case, c]) for m, weight in enumerate(weights))
                for c in range(candidates.shape[2])
            ]
            rank = mid_rank([own, *others], 0)
            values.append(1 / math.log2(rank + 1) if rank <= 10 and own > 0 else 0.0)
    return sum(values) / len(values)


def grid_of_two():
    """All weights of two members that the search can reach."""
    for weight in GRID:
        yield np.array([1, weight]) / (1 + weight)
        yield np.array([weight, 1]) / (1 + weight)


@pytest.mark.parametrize("seed", range(6))
def test_two_members_are_weighted_as_an_exhaustive_search_would(seed):
    shares = [random_shares(2, seed=seed), random_shares(2, cases=7, seed=seed + 100)]
    found = best_weights(shares)
    assert any(np.allclose(found, weights, atol=1e-6) for weights in grid_of_two())
    wanted = max(slow_ndcg(shares, weights) for weights in grid_of_two())
    assert slow_ndcg(shares, found) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_other_weight_of_one_member_is_better(seed, monkeypatch):
    """Three members: the search ends where no step of the grid helps."""
    monkeypatch.setattr(training.mixture, "ROUNDS", 50)
    shares = [random_shares(3, seed=seed)]
    found = best_weights(shares)
    reached = slow_ndcg(shares, found)
    for member, weight in itertools.product(range(3), GRID):
        tried = np.where(np.arange(3) == member, 0, found)
        if tried.any():
            tried = tried / tried.sum()
            tried[member] = weight
            assert slow_ndcg(shares, tried / tried.sum()) <= reached + 1e-9


@pytest.mark.parametrize("members", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_is_never_worse_than_its_best_member(members, seed):
    shares = [random_shares(members, seed=seed, target_among_first=seed % 2 == 0)]
    found = best_weights(shares)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()
    assert slow_ndcg(shares, found) >= max(slow_ndcg(shares, alone) for alone in np.eye(members)) - 1e-9


def test_the_same_shares_give_the_same_weights():
    shares = [random_shares(5, seed=3)]
    np.testing.assert_array_equal(best_weights(shares), best_weights(shares))


def one_hot(rows, places):
    return np.eye(places, dtype=np.float32)[rows]


def test_the_only_useful_member_serves_alone():
    random = np.random.default_rng(0)
    candidates = random.random((3, 30, 20), dtype=np.float32)
    targets = np.zeros((3, 30), dtype=np.float32)
    targets[1] = 2
    assert best_weights([(candidates, targets)]).tolist() == [0, 1, 0]


def test_members_that_know_different_cases_are_mixed():
    """Each holds its half of the targets likely and is wrong about the other half, by less."""
    knows = np.stack([np.arange(40) < 20, np.arange(40) >= 20])
    targets = np.where(knows, 0.6, 0.05).astype(np.float32)
    candidates = np.repeat(np.where(knows, 0.1, 0.15)[..., None], 12, axis=2).astype(np.float32)
    found = best_weights([(candidates, targets)])
    assert (found > 0).all()
    assert slow_ndcg([(candidates, targets)], found) == 1
    assert max(slow_ndcg([(candidates, targets)], alone) for alone in np.eye(2)) < 0.7


def test_a_member_that_changes_nothing_gets_no_weight():
    candidates, targets = random_shares(1, seed=2)
    nothing = np.zeros_like(candidates), np.zeros_like(targets)
    shares = [(np.concatenate([candidates, nothing[0]]), np.concatenate([targets, nothing[1]]))]
    assert best_weights(shares).tolist() == [1, 0]


def test_a_target_without_a_share_is_a_miss_even_among_equals():
    candidates, targets = np.zeros((1, 4, 3), dtype=np.float32), np.zeros((1, 4), dtype=np.float32)
    assert training.mixture._ndcg([(candidates, targets)], np.ones(1, dtype=np.float32)) == 0


@pytest.mark.parametrize("cases", [1, 2, 3, 5, 8, 33])
def test_equal_shares_stay_equal_whatever_their_place(cases):
    """Every candidate has exactly the target's shares: half of them stand before it, by any weights."""
    random = np.random.default_rng(cases)
    targets = random.random((7, cases), dtype=np.float32)
    candidates = np.repeat(targets[..., None], 9, axis=2)
    for _ in range(20):
        weights = random.dirichlet(np.ones(7)).astype(np.float32)
        assert training.mixture._ndcg([(candidates, targets)], weights) == pytest.approx(1 / math.log2(1 + 5.5))


def member(seed, unknowing=()):
    """A scorer of shares that knows nothing in some domains."""

    def score(cases, domain):
        table = np.random.default_rng((seed, domain)).dirichlet(np.full(SIZES[domain], 0.5), 60)
        rows = table[[int(history.sum()) % 60 for history in cases.histories()]]
        return (rows * (domain not in unknowing)).astype(np.float32)

    return score


MEMBERS = {name: member(seed) for seed, name in enumerate(NAMES)}


def knowing(cases, domain):
    """Holds the target likely; only a test may look at it."""
    columns = CATALOGUE.columns(domain)
    rows = np.full((len(cases), SIZES[domain]), 0.01, dtype=np.float32)
    rows[np.arange(len(cases)), cases.target - columns.start] = 0.5
    return rows


def test_the_scorer_is_the_weighted_sum_of_each_domain():
    cases = random_cases(20)
    weights = [{"one": 0.5, "two": 0.25, "three": 0.25}, {"one": 0.0, "two": 1.0, "three": 0.0}, {"three": 1.0}]
    for domain, of_domain in enumerate(weights):
        found = MixtureScorer(MEMBERS, weights)(cases, domain)
        assert found.dtype == np.float32
        wanted = sum(weight * MEMBERS[name](cases, domain) for name, weight in of_domain.items())
        np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_the_scorer_does_not_ask_members_without_weight():
    def refuse(*_):
        raise AssertionError

    weights = [{"one": 1.0, "two": 0.0}] * 3
    found = MixtureScorer({"one": MEMBERS["one"], "two": refuse}, weights)(random_cases(3), 1)
    np.testing.assert_array_equal(found, MEMBERS["one"](random_cases(3), 1))


@pytest.fixture
def no_pull(monkeypatch):
    """Every domain decides alone, as it nearly does with many cases."""
    monkeypatch.setattr(training.mixture, "PULL", 0)


@pytest.mark.usefixtures("no_pull")
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_fitted_weights_are_no_worse_than_any_member_by_the_evaluation_itself(exclude_seen):
    cases = random_cases(80)
    weights = fit_mixture(MEMBERS, cases, CATALOGUE, exclude_seen, default="one")

    def ndcg(scorer):
        ranks = rank_cases(cases, scorer, CATALOGUE, exclude_seen)
        return [ndcg_at_k(ranks[cases.target_domain == number], 10).mean() for number in (1, 2, 3)]

    mixed = ndcg(MixtureScorer(MEMBERS, weights))
    for scorer in MEMBERS.values():
        assert all(ours >= theirs - 1e-9 for ours, theirs in zip(mixed, ndcg(scorer), strict=True))


def test_what_is_searched_by_is_the_ndcg_of_the_evaluation():
    """Every member knows something of every item, so that no target is without a share."""
    cases = random_cases(80)
    for domain in range(3):
        own = cases.take(np.flatnonzero(cases.target_domain == domain + 1))
        shares = list(training.mixture._first_places(own, list(MEMBERS.values()), CATALOGUE, exclude_seen=True))
        for weights in ([1, 0, 0], [0.5, 0.25, 0.25], [0.1, 0.2, 0.7]):
            scorer = MixtureScorer(MEMBERS, [dict(zip(NAMES, weights, strict=True))] * 3)
            wanted = ndcg_at_k(rank_cases(own, scorer, CATALOGUE, exclude_seen=True), 10).mean()
            found = training.mixture._ndcg(shares, np.array(weights, dtype=np.float32))
            assert found == pytest.approx(wanted, abs=1e-9)


def test_only_first_places_are_kept_and_the_target_beside_them(monkeypatch):
    monkeypatch.setattr(training.mixture, "PLACES", 2)
    cases = random_cases(30)
    own = cases.take(np.flatnonzero(cases.target_domain == 2))
    for candidates, targets in training.mixture._first_places(own, list(MEMBERS.values()), CATALOGUE, False):
        assert candidates.shape == (3, len(own), 6)
        for place, name in enumerate(NAMES):
            batch = own.take(np.argsort(own.position - own.start, kind="stable"))
            scores = MEMBERS[name](batch, 1)
            target = batch.target - CATALOGUE.columns(1).start
            np.testing.assert_array_equal(targets[place], scores[np.arange(len(batch)), target])
            for row, at in zip(scores, target, strict=True):
                row[at] = -1
            best = np.sort(scores, axis=1)[:, -1]
            assert (candidates[place].max(axis=1) >= np.where(best < targets[place], 0, best) - 1e-9).all()


@pytest.mark.usefixtures("no_pull")
def test_the_useful_member_is_found_in_the_domain_where_it_is_useful():
    def useful(cases, domain):
        return knowing(cases, domain) if domain == 1 else member(9)(cases, domain) * 0

    members = {"useless": member(9, unknowing=(1,)), "useful": useful}
    weights = fit_mixture(members, random_cases(60), CATALOGUE, exclude_seen=True, default="useful")
    assert weights[1] == {"useless": 0, "useful": 1}
    assert weights[0]["useless"] > 0
    assert weights[0]["useful"] == 0


def test_a_domain_without_known_cases_is_left_to_the_others_and_without_any_to_the_default():
    """One domain has none at all, another one cold targets alone."""
    cold = [([2], 0, 2), ([7, 8], 0, 2)]
    some = fit_mixture(MEMBERS, cases_of(([1, 6], 2), *cold), CATALOGUE, exclude_seen=True, default="one")
    assert some[1] == some[2] == some[0]
    for name in NAMES:
        none = fit_mixture(MEMBERS, cases_of(*cold), CATALOGUE, exclude_seen=True, default=name)
        assert none == [{other: float(other == name) for other in NAMES}] * 3


def batches_of(*best, cases):
    """Cases whose target the members with these numbers put first, and the others last."""
    targets = np.full((3, cases), 0.1, dtype=np.float32)
    targets[list(best)] = 0.9
    return [(np.full((3, cases, 20), 0.5, dtype=np.float32), targets)]


def test_few_cases_of_a_domain_give_way_to_the_other_domains_and_many_do_not():
    others = [batches_of(1, cases=50), batches_of(1, cases=50)]
    assert best_weights(batches_of(0, cases=20), others)[1] == 1
    assert best_weights(batches_of(0, cases=3000), others)[0] == 1
    assert best_weights([], others)[1] == 1


def test_cold_targets_do_not_count_beside_known_ones():
    known = [([1, 6], 2), ([2, 9], 4), ([7, 3], 1)]
    cold = [([1, 2], 0, 1), ([3], 0, 1)]
    with_cold = fit_mixture(MEMBERS, cases_of(*known, *cold), CATALOGUE, exclude_seen=True, default="one")
    assert with_cold == fit_mixture(MEMBERS, cases_of(*known), CATALOGUE, exclude_seen=True, default="one")


def test_users_whom_popularity_answers_decide_nothing():
    known = [([1, 6], 2), ([2, 9], 4), ([7, 3], 1)]
    unknown = [([0], 1), ([0, 0], 3)]
    one = fit_mixture(MEMBERS, cases_of(*known, *unknown), CATALOGUE, exclude_seen=True, default="one")
    assert one == fit_mixture(MEMBERS, cases_of(*known), CATALOGUE, exclude_seen=True, default="one")


WEIGHTS = [
    {"one": 0.5, "two": 0.25, "three": 0.25},
    {"one": 0.0, "two": 1.0, "three": 0.0},
    dict.fromkeys(NAMES, 1 / 3),
]


@pytest.fixture
def run(tmp_path):
    write_mixture(tmp_path, DOMAINS, WEIGHTS)
    return tmp_path


def test_weights_are_read_as_they_were_written(run):
    assert read_mixture(run, DOMAINS, NAMES) == WEIGHTS
    assert list(run.iterdir()) == [run / MIXTURE]


def test_domains_and_members_are_found_by_name(run):
    turned = read_mixture(run, DOMAINS[::-1], NAMES[::-1])
    assert [list(weights) for weights in turned] == [list(NAMES[::-1])] * 3
    assert turned == WEIGHTS[::-1]


def changed(run, edit):
    content = json.loads((run / MIXTURE).read_text())
    edit(content)
    (run / MIXTURE).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda content: content.pop("Games"), "Games"),
        (lambda content: content["Toys"].pop("two"), "two"),
        (lambda content: content["Books"].update(one=-0.1, two=0.85), "Books"),
        (lambda content: content["Books"].update(one=0.9), "Books"),
        (lambda content: content["Games"].update(two=0.5), "Games"),
        (lambda content: content["Games"].update(two=math.nan), "Games"),
        (lambda content: content["Games"].update(two=math.inf), "Games"),
        (lambda content: content["Games"].update(two="much"), "much"),
        (lambda content: content["Games"].update(two=None), "NoneType"),
        (lambda content: content.update(Games=[0.5, 0.5, 0]), "damaged"),
    ],
)
def test_damaged_weights_are_refused_by_name(run, edit, named):
    changed(run, edit)
    with pytest.raises(WorkFailed, match=rf"{MIXTURE}.*{named}"):
        read_mixture(run, DOMAINS, NAMES)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff\xfe"])
def test_a_file_that_holds_no_weights_is_refused_by_name(run, content):
    (run / MIXTURE).write_bytes(content)
    with pytest.raises(WorkFailed, match=rf"{MIXTURE}: damaged"):
        read_mixture(run, DOMAINS, NAMES)


def test_missing_weights_say_how_to_go_on(tmp_path):
    with pytest.raises(WorkFailed, match=rf"{MIXTURE}: missing: .*`syncrec train --resume`"):
        read_mixture(tmp_path, DOMAINS, NAMES)


def test_a_full_disk_leaves_the_former_weights(run, monkeypatch):
    def full(_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkFailed, match=rf"{MIXTURE}: No space left"):
        write_mixture(run, DOMAINS, [{"one": 1.0, "two": 0.0, "three": 0.0}] * 3)
    assert read_mixture(run, DOMAINS, NAMES) == WEIGHTS
    assert list(run.iterdir()) == [run / MIXTURE]
