import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from formats.errors import WrongUse
from training.bootstrap import FEWEST_USERS, holm, user_bootstrap
from training.case_results import CaseResults
from training.compare import compare
from training.evaluate import Protocol
from training.metrics import metric_named

NDCG = metric_named("ndcg@10")
DOMAINS = ("A", "B", "C")  # C has no cases
USERS, PER_USER = 60, 4


def results(ranks, name="run"):
    """60 users with two cases of A, then two of B each."""
    cases = pl.DataFrame(
        {
            "user_id": [f"u{user}" for user in range(USERS) for _ in range(PER_USER)],
            "domain": pl.Series(["A", "A", "B", "B"] * USERS, dtype=pl.Enum(DOMAINS)),
            "place": pl.Series(list(range(PER_USER)) * USERS, dtype=pl.Int32),
        }
    )
    return CaseResults(name, "f" * 64, Protocol(), cases, np.asarray(ranks, dtype=np.float64))


def random_ranks(seed, worst):
    return np.random.default_rng(seed).integers(1, worst, USERS * PER_USER).astype(float)


IN_A = np.array([True, True, False, False] * USERS)


def test_differences_by_hand():
    """The baseline always at rank 3 (one half), the other at rank 1 in A and cold in B."""
    baseline, other = results(np.full(IN_A.shape, 3)), results(np.where(IN_A, 1, math.inf))
    found = compare([baseline], [other], NDCG, draws=100)
    assert found.domains["A"].n == found.domains["B"].n == 2 * USERS
    assert (found.domains["A"].baseline, found.domains["A"].other) == (0.5, 1)
    assert found.domains["A"].estimate.value == 0.5
    assert found.domains["B"].estimate.value == -0.5
    assert (found.domains["A"].verdict, found.domains["B"].verdict) == ("better", "worse")
    assert found.domains["C"] is None
    assert found.macro.n == 4 * USERS
    assert (found.macro.baseline, found.macro.other, found.macro.estimate.value) == (0.5, 0.5, 0)
    assert found.macro.verdict == "not told apart"


def test_it_is_the_bootstrap_of_the_case_by_case_differences():
    baseline, other = random_ranks(0, 30), random_ranks(1, 25)
    found = compare([results(baseline)], [results(other)], NDCG, draws=300)
    user = np.repeat(np.arange(USERS), PER_USER)
    expected = user_bootstrap(NDCG(other) - NDCG(baseline), user, (~IN_A).astype(int), 3, draws=300)
    # Users are numbered by their ids, so the draws weight others; the estimates are the same.
    for name, group in zip("AB", expected.groups, strict=False):
        estimate = found.domains[name].estimate
        assert estimate.value == pytest.approx(group.value)
        assert estimate.interval.standard_error == pytest.approx(group.interval.standard_error, rel=0.2)
    assert found.macro.estimate.value == pytest.approx(expected.macro.value)
    adjusted = holm([found.domains[name].estimate.interval.p for name in "AB"])
    assert [found.domains[name].p_holm for name in "AB"] == adjusted
    assert found.macro.p_holm is None


def test_a_run_against_itself_is_no_difference():
    one = results(random_ranks(0, 30))
    found = compare([one], [one], NDCG, draws=50)
    assert found.macro.estimate.value == 0
    assert found.macro.estimate.interval.p == 1
    assert {found.domains[name].verdict for name in "AB"} == {"not told apart"}


def test_seeds_are_averaged_case_by_case_and_their_spread_is_told():
    ranks = [random_ranks(seed, 20) for seed in range(3)]
    other = results(random_ranks(9, 20))
    found = compare([results(one) for one in ranks], [other], NDCG, draws=50)
    means = [NDCG(one)[IN_A].mean() for one in ranks]
    assert found.domains["A"].baseline == pytest.approx(np.mean(means))
    assert found.domains["A"].baseline_spread == pytest.approx(np.std(means, ddof=1))
    assert found.domains["A"].other_spread is None
    macros = [(NDCG(one)[IN_A].mean() + NDCG(one)[~IN_A].mean()) / 2 for one in ranks]
    assert found.macro.baseline_spread == pytest.approx(np.std(macros, ddof=1))
    assert found.macro.estimate.value == pytest.approx(found.macro.other - np.mean(macros))


def test_more_seeds_make_the_interval_narrower():
    """Luck of single runs is averaged away before users are drawn."""
    baseline = [results(random_ranks(seed, 20)) for seed in range(8)]
    other = [results(random_ranks(seed, 20)) for seed in range(10, 18)]
    single, eight = compare(baseline[:1], other[:1], NDCG, draws=200), compare(baseline, other, NDCG, draws=200)
    assert eight.macro.estimate.interval.standard_error < single.macro.estimate.interval.standard_error / 2


def test_with_too_few_users_nothing_is_claimed():
    one = results(random_ranks(0, 20))
    few = (FEWEST_USERS - 1) * PER_USER
    one, other = (
        replace(one, cases=one.cases.head(few), ranks=ranks[:few]) for ranks in (one.ranks, np.ones(IN_A.shape))
    )
    found = compare([one], [other], NDCG, draws=20)
    assert found.domains["A"].verdict == found.macro.verdict == "too few users"
    assert found.domains["A"].p_holm is None
    assert found.domains["A"].to_json()["interval"] is None


def test_without_cases_there_is_nothing():
    one = results(random_ranks(0, 20))
    none = replace(one, cases=one.cases.clear(), ranks=one.ranks[:0])
    found = compare([none], [none], NDCG, draws=20)
    assert found.to_json() == {"domains": dict.fromkeys(DOMAINS), "macro": None}


def test_json_holds_everything():
    found = compare([results(random_ranks(0, 30))], [results(random_ranks(1, 25))], NDCG, draws=50).to_json()
    json.dumps(found, allow_nan=False)
    of_a = found["domains"]["A"]
    assert of_a.keys() >= {"n", "baseline", "other", "difference", "p_holm", "verdict"}
    assert of_a["interval"].keys() == {"low", "high", "p", "standard_error", "visible"}
    assert of_a["interval"]["visible"] == pytest.approx(2.8016 * of_a["interval"]["standard_error"], rel=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "0" * 64}, "other is of another dataset than run: fingerprint 000000000000, not ffffffffffff"),
        ({"protocol": Protocol(exclude_seen=False)}, "evaluated otherwise than run: seen_items 'kept', not 'excluded'"),
        ({"protocol": Protocol(max_cases=5)}, "max_cases 5, not None; evaluate both alike"),
        ({"protocol": Protocol(among="catalogue")}, "ranking 'full, among the items of all domains', not"),
        ({"protocol": Protocol("validation")}, "part 'validation', not 'test'"),
    ],
)
@pytest.mark.parametrize("place", ["other", "seed of the baseline"])
def test_what_cannot_be_compared_is_refused(change, reason, place):
    one = results(random_ranks(0, 30))
    strange = replace(one, name="other", **change)
    baseline, other = ([one], [strange]) if place == "other" else ([one, strange], [one])
    with pytest.raises(WrongUse, match=reason):
        compare(baseline, other, NDCG, draws=10)


def test_drawn_candidates_beside_full_ranking_hinder_no_comparison():
    one = results(random_ranks(0, 30))
    compare([one], [replace(one, protocol=Protocol(sampled=100))], NDCG, draws=10)


def test_other_cases_are_refused():
    one = results(random_ranks(0, 30))
    moved = one.cases.with_columns(pl.col("place") + 1)
    with pytest.raises(WrongUse, match="other has other cases than run"):
        compare([one], [replace(one, name="other", cases=moved)], NDCG, draws=10)
