import numpy as np
import pytest

from service.experiments.analysis.off_policy import (
    FEWEST_EFFECTIVE,
    doubly_robust,
    effective_sample,
    importance,
    snips,
)

ITEMS, EXPLORED = 10, 0.5
RUNS, SLOTS = 200, 24_000


def logged(rng, requests, users=4000):
    """One slot, a ranker with the best item by its scores, and half of the requests at random; another ranker to judge.

    Returns reward, weights, user, and the mean click rate of the other ranker's items.
    """
    rate = rng.beta(1, 19, users)
    appeal = np.exp(rng.normal(0, 0.5, ITEMS))
    user = rng.integers(0, users, requests)
    seen_by_old, seen_by_new = (appeal + 2 * rng.random((requests, ITEMS)) for _ in range(2))
    best, other = seen_by_old.argmax(axis=1), (seen_by_new + 3 * appeal).argmax(axis=1)
    shown = np.where(rng.random(requests) < EXPLORED, rng.integers(0, ITEMS, requests), best)
    propensity = EXPLORED / ITEMS + (1 - EXPLORED) * (shown == best)
    clicks = np.minimum(rate[user, None] * appeal, 1)
    reward = (rng.random(requests) < clicks[np.arange(requests), shown]).astype(float)
    truth = np.minimum(rate[:, None] * appeal, 1).mean(axis=0)
    weights = importance((shown == other).astype(float), propensity)
    expected = truth * 0.8  # a model of the reward that is wrong everywhere
    return reward, weights, user, truth[other].mean(), expected[shown], expected[other]


def test_intervals_hold_the_value_of_a_ranker_that_was_never_shown():
    rng = np.random.default_rng(0)
    simple, robust, errors = [], [], []
    for _ in range(RUNS):
        reward, weights, user, truth, on_shown, on_other = logged(rng, SLOTS)
        for found, inside in (
            (snips(reward, weights, user), simple),
            (doubly_robust(reward, weights, user, on_shown, on_other), robust),
        ):
            assert found.status == "measured"
            inside.append(found.interval.lower <= truth <= found.interval.upper)
        errors.append(snips(reward, weights, user).value - truth)
    assert 0.93 - 0.015 <= np.mean(simple) <= 0.97 + 0.015
    assert 0.93 - 0.015 <= np.mean(robust) <= 0.97 + 0.015
    assert np.mean(errors) == pytest.approx(0, abs=3 * np.std(errors) / np.sqrt(RUNS))


def test_users_who_come_often_do_not_make_the_interval_narrow():
    """Every slot ten times over by the same user says nothing new."""
    reward, weights, user, *_ = logged(np.random.default_rng(1), SLOTS)
    once, often = snips(reward, weights, user), snips(*(np.repeat(x, 10) for x in (reward, weights, user)))
    assert often.value == pytest.approx(once.value)
    width = [found.interval.upper - found.interval.lower for found in (once, often)]
    assert width[1] == pytest.approx(width[0])


def test_snips_by_hand():
    reward, weights = np.tile([1.0, 0, 1, 0], 400), np.tile([2.0, 0, 1, 1], 400)
    found = snips(reward, weights, np.arange(1600))
    assert found.value == pytest.approx(3 / 4)
    assert found.effective == pytest.approx(1600**2 / 2400)
    model, other = np.full(1600, 0.5), np.full(1600, 0.25)
    robust = doubly_robust(reward, weights, np.arange(1600), model, other)
    assert robust.value == pytest.approx(0.25 + (2 * 0.5 + 1 * 0.5 - 1 * 0.5) / 4)


def test_too_little_exploration_is_refused():
    weights = np.zeros(50_000)
    weights[: FEWEST_EFFECTIVE - 1] = 100
    found = snips(np.ones(50_000), weights, np.arange(50_000))
    assert found.effective == pytest.approx(FEWEST_EFFECTIVE - 1)
    assert (found.status, found.value, found.interval) == ("too_few_effective_requests", None, None)
    weights[FEWEST_EFFECTIVE - 1] = 100
    assert snips(np.ones(50_000), weights, np.arange(50_000)).status == "measured"
    assert effective_sample(np.zeros(3)) == 0


@pytest.mark.parametrize("propensity", [0.0, -0.1, 1.5])
def test_a_propensity_that_cannot_be(propensity):
    with pytest.raises(ValueError, match="a propensity must be above 0 and at most 1"):
        importance(np.ones(2), np.array([0.5, propensity]))
