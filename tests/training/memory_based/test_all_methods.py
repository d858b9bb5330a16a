"""What holds for every recommender without training."""

from dataclasses import replace

import numpy as np
import pytest

from tests.reference.memory_based import random_timed_dataset
from training.cases import contexts
from training.memory_based.decay import PlaceDecay, TimeDecay
from training.memory_based.ease import EaseConfig, fit_ease
from training.memory_based.item_knn import ItemKnnConfig, fit_item_knn
from training.memory_based.recent_popularity import RecentPopularityConfig, fit_recent_popularity
from training.memory_based.v_sknn import VSknnConfig, fit_v_sknn

LIVE = {
    "half-life": (fit_recent_popularity, RecentPopularityConfig(half_life_days=3.0)),
    "window": (fit_recent_popularity, RecentPopularityConfig(window_days=4)),
}
FITTED = {
    "own kNN": (fit_item_knn, ItemKnnConfig(2, TimeDecay(1, 0.25), TimeDecay(2, 0.125), 0.5, 3, cross_domain=False)),
    "cross kNN": (fit_item_knn, ItemKnnConfig(9, TimeDecay(1, 0.25), PlaceDecay(0.8), 0.5, 9, cross_domain=True)),
    "own V-SkNN": (fit_v_sknn, VSknnConfig(2, 4, 3, 0.0, cross_domain=False)),
    "cross V-SkNN": (fit_v_sknn, VSknnConfig(9, 9, 9, 1.0, cross_domain=True)),
    "EASE": (fit_ease, EaseConfig(1.5, max_items=100)),
    "EASE of popular items": (fit_ease, EaseConfig(0.5, max_items=3)),
}
METHODS = FITTED | LIVE
EVERY = pytest.mark.parametrize("method", METHODS)
# But for EASE, whose dense products depend on their shape in the last bits.
TOLERANCE = {"EASE": 1e-7, "EASE of popular items": 1e-7}


@pytest.fixture(params=range(3))
def dataset(tmp_path, request):
    return random_timed_dataset(tmp_path / "timed.dataset", seed=request.param)


def scorer_of(method, dataset):
    fit, config = METHODS[method]
    return fit(dataset, config).scorer


@pytest.mark.parametrize("method", FITTED)
def test_only_training_events_are_fitted(dataset, method):
    cases = contexts(dataset, "test")
    other = replace(dataset, context=dataset.train, validation=dataset.train, test=dataset.train)
    for domain in range(3):
        found = scorer_of(method, dataset)(cases, domain)
        np.testing.assert_array_equal(found, scorer_of(method, other)(cases, domain))


@EVERY
def test_target_and_later_events_are_not_read(dataset, method):
    cases, scorer = contexts(dataset, "test"), scorer_of(method, dataset)
    for case in range(len(cases)):
        alone = cases.take(np.array([case]))
        here = alone.position[0]
        items, domains, times = (array.copy() for array in (alone.item_index, alone.domain, alone.timestamp))
        items[here:] = 1 + items[here:] % 16
        domains[here:] = 1 + domains[here:] % 3
        times[here + 1 :] += 10**12
        changed = replace(alone, item_index=items, domain=domains, timestamp=times)
        for domain in range(3):
            np.testing.assert_array_equal(scorer(alone, domain), scorer(changed, domain))


@EVERY
def test_scores_do_not_depend_on_the_batch(dataset, method):
    cases, scorer = contexts(dataset, "test"), scorer_of(method, dataset)
    for domain in range(3):
        alone = [scorer(cases.take(np.array([case])), domain)[0] for case in range(len(cases))]
        np.testing.assert_allclose(scorer(cases, domain), alone, rtol=0, atol=TOLERANCE.get(method, 0))


@EVERY
def test_no_cases_no_scores(dataset, method):
    none = contexts(dataset, "test").take(np.array([], dtype=np.int64))
    found = [scorer_of(method, dataset)(none, domain) for domain in range(3)]
    assert [scores.shape for scores in found] == [(0, 9), (0, 6), (0, 1)]
    assert {scores.dtype for scores in found} == {np.dtype(np.float32)}
