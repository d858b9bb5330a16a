from dataclasses import replace

import numpy as np
import pytest

import training.memory_based.item_knn
from formats.errors import WrongUse
from tests.reference.memory_based import item_knn, neighbours, random_timed_dataset, write_timed_dataset
from training.cases import contexts
from training.memory_based.decay import PlaceDecay, TimeDecay
from training.memory_based.item_knn import ItemKnnConfig, fit_item_knn

# Halves every day: on whole days all sums of pairs are exact, and equal weights are equal to the bit.
OWN = ItemKnnConfig(
    neighbours=2,
    pair_decay=TimeDecay(1, 0.25),
    history_decay=TimeDecay(2, 0.125),
    damping=0.5,
    history=3,
    cross_domain=False,
)
CROSS = replace(OWN, cross_domain=True)
CONFIGS = [
    OWN,
    CROSS,
    replace(CROSS, damping=0.0, neighbours=1),
    replace(CROSS, damping=1.0, neighbours=100, history=100),
    replace(OWN, history_decay=PlaceDecay(0.75)),
]
EVERY = pytest.mark.parametrize("config", CONFIGS)


def slow_history_weight(config):
    decay = config.history_decay
    if isinstance(decay, PlaceDecay):
        return lambda age, place: decay.factor**place
    return lambda age, place: decay.floor + (1 - decay.floor) * 0.5 ** (age / decay.half_life_days)


@pytest.fixture(params=range(3))
def dataset(tmp_path, request):
    return random_timed_dataset(tmp_path / "timed.dataset", seed=request.param)


@EVERY
@pytest.mark.parametrize("part", ["validation", "test"])
def test_scores_agree_with_loops_over_users_and_pairs(dataset, config, part):
    cases, fitted = contexts(dataset, part), fit_item_knn(dataset, config)
    kept = neighbours(dataset, config)
    for domain in range(3):
        found = fitted.scorer(cases, domain)
        assert found.dtype == np.float32
        for case in range(len(cases)):
            slow = item_knn(dataset, config, kept, cases, case, domain, slow_history_weight(config))
            np.testing.assert_allclose(found[case], slow, rtol=1e-5)


@EVERY
def test_the_table_holds_the_kept_neighbours(dataset, config):
    items, weights = fit_item_knn(dataset, config).table()
    assert items.dtype == np.int32
    assert weights.dtype == np.float32
    assert items.shape == weights.shape
    kept = neighbours(dataset, config)
    assert items.shape == (17, max(map(len, kept.values())))
    for item in range(17):
        filled = items[item] > 0
        assert items[item][filled].tolist() == sorted(kept[item])
        np.testing.assert_allclose(
            weights[item][filled], [kept[item][other] for other in sorted(kept[item])], rtol=1e-6
        )
        assert not weights[item][~filled].any()


@EVERY
def test_gathering_the_table_and_adding_gives_the_scores(dataset, config):
    """What a graph with the table inside does, for a history whose weights are all 1."""
    fitted = fit_item_knn(dataset, replace(config, history_decay=PlaceDecay(1), cross_domain=True, history=100))
    items, weights = fitted.table()
    cases = contexts(dataset, "test")
    for case, history in enumerate(cases.histories()):
        scores = np.zeros(17, dtype=np.float32)
        np.add.at(scores, items[history], weights[history])
        found = np.concatenate([fitted.scorer(cases.take(np.array([case])), domain)[0] for domain in range(3)])
        np.testing.assert_allclose(scores[1:], found, rtol=1e-5)


def one_user(tmp_path, items_per_domain, row, history):
    dataset = write_timed_dataset(
        tmp_path / "one.dataset", items_per_domain, train=[row, history], validation=[[], [(1, 90)]]
    )
    return dataset, contexts(dataset, "validation")


def test_events_fifty_places_apart_are_a_pair_and_no_further(tmp_path):
    dataset, _ = one_user(tmp_path, {"Books": 60}, [(item, 1) for item in range(1, 53)], [])
    items, _ = fit_item_knn(dataset, replace(OWN, neighbours=60)).table()
    assert [item for item in items[1].tolist() if item] == list(range(2, 52))
    assert [item for item in items[52].tolist() if item] == list(range(2, 52))


def test_places_are_counted_over_all_domains(tmp_path):
    """Two events of Books with 50 of Games between them are 51 places apart."""
    between = [(item, 1) for item in range(3, 53)]
    near, _ = one_user(tmp_path / "near", {"Books": 2, "Games": 50}, [(1, 1), *between[:-1], (2, 1)], [])
    far, _ = one_user(tmp_path / "far", {"Books": 2, "Games": 50}, [(1, 1), *between, (2, 1)], [])
    assert fit_item_knn(near, OWN).weights[0][1].nnz == 1
    assert fit_item_knn(far, OWN).weights[0][1].nnz == 0


def test_equal_neighbours_are_cut_by_item_index(tmp_path):
    dataset, _ = one_user(tmp_path, {"Books": 5}, [(item, 1) for item in (5, 3, 1, 4, 2)], [])
    items, weights = fit_item_knn(dataset, OWN).table()
    assert items.tolist() == [[0, 0], [2, 3], [1, 3], [1, 2], [1, 2], [1, 2]]
    assert weights[1:].tolist() == [[1, 1]] * 5


def test_users_do_not_pair_with_each_other(tmp_path):
    dataset = write_timed_dataset(tmp_path / "two.dataset", {"Books": 4}, train=[[(1, 1), (2, 1)], [(3, 1), (4, 1)]])
    items, _ = fit_item_knn(dataset, OWN).table()
    assert items.tolist() == [[0], [2], [1], [4], [3]]


def test_an_item_without_neighbours_and_a_history_without_items_score_nothing(tmp_path):
    rows = [[(1, 1), (2, 1)], [(3, 1)], [], [((0, 1), 2)]]
    dataset = write_timed_dataset(
        tmp_path / "alone.dataset",
        {"Books": 3},
        train=rows[:3],
        validation=[[], [(1, 5)], [(1, 5)], [*rows[3], (1, 5)]],
    )
    cases, fitted = contexts(dataset, "validation"), fit_item_knn(dataset, CROSS)
    assert len(cases) == 4
    assert not fitted.scorer(cases, 0).any()


@EVERY
@pytest.mark.parametrize("events", [1, 7])
def test_neighbours_do_not_depend_on_the_block(dataset, config, events, monkeypatch):
    whole = fit_item_knn(dataset, config).table()
    monkeypatch.setattr(training.memory_based.item_knn, "EVENTS_PER_BLOCK", events)
    for found, expected in zip(fit_item_knn(dataset, config).table(), whole, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("values", "field"),
    [({"neighbours": 0}, "neighbours"), ({"history": 0}, "history"), ({"damping": -0.1}, "damping")],
)
def test_a_config_that_cannot_be_meant_is_refused(values, field):
    with pytest.raises(WrongUse, match=field):
        replace(OWN, **values)
