import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.experiments.analysis.interleaving import preference
from service.experiments.analysis.ratio import CTR, compare
from service.experiments.analysis.sums import Sums
from service.experiments.team_draft import team_draft

rankings = st.lists(st.sampled_from("abcdefghij"), unique=True)


@given(rankings, rankings, st.integers(1, 12), st.integers())
def test_a_draft_is_a_list_of_both(control, treatment, k, seed):
    items, teams = team_draft(control, treatment, k, random.Random(seed))
    assert len(items) == len(teams) == min(k, len({*control, *treatment}))
    assert len(set(items)) == len(items)
    for team, ranked in (("control", control), ("treatment", treatment)):
        picks = [item for item, whose in zip(items, teams, strict=True) if whose == team]
        assert picks == [item for item in ranked if item in picks]
        # Nothing that a team prefers to one of its picks is shown later, or not at all.
        for pick in picks:
            assert set(ranked[: ranked.index(pick)]) <= set(items[: items.index(pick)])
    assert team_draft(control, treatment, k, random.Random(seed)) == (items, teams)


def test_teams_pick_in_turns_and_a_coin_decides_who_is_first():
    firsts = Counter()
    for seed in range(2000):
        _, teams = team_draft(["a", "b", "c", "d"], ["x", "y", "z", "w"], 4, random.Random(seed))
        assert Counter(teams[:2]) == Counter(teams[2:]) == {"control": 1, "treatment": 1}
        firsts[teams[0], teams[2]] += 1
    assert all(count == pytest.approx(500, abs=5 * np.sqrt(375)) for count in firsts.values())
    assert len(firsts) == 4


def test_a_list_that_both_have_gives_nobody_an_advantage():
    teams = [team_draft("abc", "abc", 3, random.Random(seed))[1] for seed in range(3000)]
    for rank in range(3):
        assert np.mean([team[rank] == "control" for team in teams]) == pytest.approx(0.5, abs=0.045)


ITEMS, K = 24, 10


def rankers(rng, users, noise, requests=3):
    """Relevance of items to users, [users, items], and what a ranker that sees it through noise shows, [users, requests, items]."""
    relevance = rng.normal(size=(users, ITEMS))
    ranked = [
        np.argsort(-(relevance[:, None] + rng.normal(0, sigma, (users, requests, ITEMS))), axis=2) for sigma in noise
    ]
    rate = rng.beta(0.05 * 20, 0.95 * 20, users)[:, None] * np.exp(0.5 * relevance)
    return ranked, np.minimum(rate, 1)


def interleaved(rng, users, noise):
    """Clicks of each user on either team's items."""
    (control, treatment), rate = rankers(rng, users, noise)
    clicks = np.zeros((2, users))
    for user in range(users):
        for a, b in zip(control[user], treatment[user], strict=True):
            items, teams = team_draft(a.tolist(), b.tolist(), K, random.Random(int(rng.integers(1 << 30))))
            clicked = rng.random(K) < rate[user, items]
            clicks[0, user] += sum(clicked[i] for i in range(K) if teams[i] == "control")
            clicks[1, user] += sum(clicked[i] for i in range(K) if teams[i] == "treatment")
    return preference(*clicks)


def ab(rng, users, noise):
    """The same rankers in an A/B test with so many users an arm."""
    arms = []
    for number in range(2):
        ranked, rate = rankers(rng, users, noise)
        top = ranked[number][:, :, :K]
        clicks = rng.random(top.shape) < np.take_along_axis(rate[:, None], top, axis=2)
        arms.append(Sums.of({"clicks": clicks.sum(axis=(1, 2)), "impressions": np.full(users, top[0].size)}))
    return compare(*arms, CTR)


def test_it_agrees_with_an_ab_test_of_five_times_the_users():
    rng = np.random.default_rng(0)
    noise = (2.0, 1.0)  # treatment is better
    found = [interleaved(rng, 250, noise) for _ in range(60)]
    tested = [ab(rng, 625, noise) for _ in range(60)]
    true_lift = np.mean([effect.relative for effect in tested])
    assert true_lift > 0.1
    assert np.mean([one.value > 0 for one in found]) >= 0.95
    assert np.mean([one.p < 0.05 for one in found]) > np.mean([effect.p < 0.05 for effect in tested])


def test_two_rankers_that_are_alike_are_called_different_in_five_of_a_hundred():
    rng = np.random.default_rng(1)
    p = np.array([interleaved(rng, 150, (1.0, 1.0)).p for _ in range(200)])
    assert 0.015 <= np.mean(p < 0.05) <= 0.085  # of 200 runs
    # Many more by the test itself: clicks of users who differ in how much they click, with no preference.
    clicks = rng.poisson(rng.gamma(0.5, 4, (2000, 400)))
    treatment = rng.binomial(clicks, 0.5)
    rejected = [
        preference(c - t, t).p < 0.05 for c, t in zip(clicks.astype(float), treatment.astype(float), strict=True)
    ]
    assert np.mean(rejected) == pytest.approx(0.05, abs=0.012)


def test_without_clicks_nobody_wins():
    nothing = preference(np.zeros(5), np.zeros(5))
    assert (nothing.value, nothing.interval, nothing.p) == (None, None, None)
    all_won = preference(np.zeros(5), np.ones(5))
    assert (all_won.value, all_won.p) == (1.0, None)
