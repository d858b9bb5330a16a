"""The members of the mixture against loops over users and events, and what none of them may see."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import training.members
from formats.history import encode_histories
from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, SINGLE
from tests.reference.memory_based import (
    DAY,
    FIRST_DAY,
    days_of,
    item_knn,
    items_of,
    neighbours,
    newest,
    random_timed_dataset,
    recent_popularity,
    write_timed_dataset,
)
from training.cases import contexts
from training.manifest import PARTS
from training.members import HALF_LIVES, KNN_HISTORY, NAMES, RECENT, fit_members

MAX_HISTORY = 4
DOMAINS = range(3)


@pytest.fixture(scope="module", params=range(4))
def dataset(request, tmp_path_factory):
    return random_timed_dataset(tmp_path_factory.mktemp("members") / "timed.dataset", request.param)


@pytest.fixture(scope="module")
def members(dataset):
    return fit_members(dataset, MAX_HISTORY)


def logits(seed):
    """A scorer of logits by the number of the case's last event."""

    def score(cases, domain):
        random = np.random.default_rng((seed, domain)).normal(size=(50, 9))
        size = (9, 6, 1)[domain]
        return random[cases.position % 50, :size].astype(np.float32) * 3

    return score


def scorers(members):
    return members.scorers({CROSS: logits(0), SINGLE: logits(1)})


def shares(scores):
    scores = np.asarray(scores, dtype=np.float64)
    return scores / (scores.sum() or 1)


def test_there_is_a_scorer_for_every_name_in_this_order(members):
    assert tuple(scorers(members)) == NAMES
    assert RECENT == ("recent_4d", "recent_14d", "recent_60d")


@pytest.mark.parametrize("part", ["validation", "test"])
def test_shares_add_up_to_1_or_are_all_0(dataset, members, part):
    cases = contexts(dataset, part)
    unknowing = dict.fromkeys(NAMES, 0)
    for name, scorer in scorers(members).items():
        for domain in DOMAINS:
            found = scorer(cases, domain)
            assert found.dtype == np.float32
            assert (found >= 0).all()
            sums = found.sum(axis=1)
            unknowing[name] += (sums == 0).sum()
            np.testing.assert_allclose(sums[sums > 0], 1, rtol=1e-5)
    assert unknowing[CROSS] == unknowing[SINGLE] == 0
    assert unknowing[NEIGHBOURS] > 0
    assert unknowing[OWN_NEIGHBOURS] >= unknowing[NEIGHBOURS]


def test_logits_become_their_softmax(dataset, members):
    cases = contexts(dataset, "test")
    for name, seed in ((CROSS, 0), (SINGLE, 1)):
        for domain in DOMAINS:
            likely = np.exp(logits(seed)(cases, domain).astype(np.float64))
            wanted = likely / likely.sum(axis=1, keepdims=True)
            np.testing.assert_allclose(scorers(members)[name](cases, domain), wanted, rtol=1e-5)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_recent_popularity_counts_the_events_before_the_day_of_the_case(dataset, members, part):
    cases = contexts(dataset, part)
    for name, half_life in zip(RECENT, HALF_LIVES, strict=True):
        for domain in DOMAINS:
            found = scorers(members)[name](cases, domain)
            for case in range(len(cases)):
                wanted = recent_popularity(
                    dataset, cases, case, domain, lambda age, days=half_life: 0.5 ** (age / days)
                )
                np.testing.assert_allclose(found[case], shares(wanted), rtol=1e-5)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_neighbours_are_those_of_the_newest_events_of_all_domains(dataset, members, part):
    cases, config = contexts(dataset, part), members.knn.config
    assert config.history == MAX_HISTORY
    kept = neighbours(dataset, config)
    for domain in DOMAINS:
        found = scorers(members)[NEIGHBOURS](cases, domain)
        for case in range(len(cases)):
            wanted = item_knn(
                dataset,
                config,
                kept,
                cases,
                case,
                domain,
                lambda _, place: members.knn.config.history_decay.factor**place,
            )
            np.testing.assert_allclose(found[case], shares(wanted), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("part", ["validation", "test"])
def test_own_neighbours_hear_the_domain_alone_within_the_window_of_all(dataset, members, part):
    cases = contexts(dataset, part)
    kept = neighbours(dataset, members.knn.config)
    for domain in DOMAINS:
        found = scorers(members)[OWN_NEIGHBOURS](cases, domain)
        own = items_of(dataset, domain)
        for case in range(len(cases)):
            window = newest(cases, case, range(1, dataset.items + 1), MAX_HISTORY)
            scores = dict.fromkeys(own, 0.0)
            for place, item in enumerate(item for item, _ in window if item in own):
                for neighbour, weight in kept[item].items():
                    if neighbour in own:
                        scores[neighbour] += KNN_HISTORY.factor**place * weight
            np.testing.assert_allclose(found[case], shares(list(scores.values())), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [NEIGHBOURS, OWN_NEIGHBOURS])
def test_the_tensors_give_what_the_scorers_give(dataset, members, name):
    """Histories with unknown items, none at all, and more than the window."""
    module = members.neighbours([{name: 1.0}] * 3)
    for part in ("validation", "test"):
        cases = contexts(dataset, part)
        histories = cases.histories()
        assert max(map(len, histories)) > MAX_HISTORY
        assert any((history == 0).any() for history in histories)
        encoded = torch.from_numpy(encode_histories(histories, MAX_HISTORY, dataset.items))
        found = module(torch.zeros(len(cases), dataset.items + 2), encoded).numpy()
        assert (found[:, [0, -1]] == 0).all()
        for domain in DOMAINS:
            own = items_of(dataset, domain)
            wanted = scorers(members)[name](cases, domain)
            np.testing.assert_allclose(found[:, own.start : own.stop], wanted, rtol=1e-5, atol=1e-7)


def test_the_tensors_hold_the_domains_that_give_neighbours_a_weight(members):
    assert members.neighbours([{CROSS: 1.0, NEIGHBOURS: 0.0, OWN_NEIGHBOURS: 0.0}] * 3) is None
    module = members.neighbours([{NEIGHBOURS: 0.25}, {CROSS: 1.0}, {NEIGHBOURS: 0.5, OWN_NEIGHBOURS: 0.25}])
    assert (module.domains, module.of_all, module.of_own) == ([1, 3], [0.25, 0.5], [0.0, 0.25])
    assert module.item.shape[1] == 2
    whole = members.neighbours([{NEIGHBOURS: 1.0}] * 3)
    assert whole.item.shape[1] == 3
    assert set(module.item.unique().tolist()) == set(whole.item[:, [0, 2]].unique().tolist())


def test_a_dataset_without_any_pair_of_events_has_no_neighbours(tmp_path):
    dataset = write_timed_dataset(
        tmp_path / "d", {"A": 2, "B": 1}, [[(1, 0)], [(2, 1)], [(3, 2)]], validation=[[(2, 5)], [(3, 6)]]
    )
    members = fit_members(dataset, MAX_HISTORY)
    cases = contexts(dataset, "validation")
    encoded = torch.from_numpy(encode_histories(cases.histories(), MAX_HISTORY, dataset.items))
    for name in (NEIGHBOURS, OWN_NEIGHBOURS):
        assert not members.neighbours([{name: 1.0}] * 2)(torch.zeros(2, dataset.items + 2), encoded).any()
        for domain in range(2):
            assert not scorers(members)[name](cases, domain).any()


@pytest.mark.parametrize("day", [0, 1, 7, 22, 28, 30, 45])
def test_recent_counts_of_a_day_are_slow_counts_of_all_events_before_it(dataset, members, day):
    found = members.recent_counts(FIRST_DAY + day)
    assert found.shape == (len(HALF_LIVES), dataset.items + 2)
    assert found.dtype == np.float32
    wanted = np.zeros(found.shape)
    for part in PARTS:
        for row in days_of(dataset, part):
            for item, when in row:
                if item and when < day:
                    wanted[:, item] += [0.5 ** ((day - when) / half_life) for half_life in HALF_LIVES]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_no_member_sees_the_day_of_a_case_or_later_or_its_target(dataset, members):
    """All other users' events of the day and later become other items, and so does the target: every share stays.

    Neighbours are counted in training alone, which ends before.
    """
    cases = contexts(dataset, "test")
    for case in range(len(cases)):
        today = int(cases.timestamp[cases.position[case]]) // DAY
        tables = {}
        for part in ("validation", "test"):
            table = dataset.part(part)
            late = table.timestamp // DAY >= today
            tables[part] = replace(table, item_index=np.where(late, 1, table.item_index).astype(np.int32))
        changed = fit_members(replace(dataset, **tables), MAX_HISTORY)
        item_index = cases.item_index.copy()
        item_index[cases.position[case]] = 2
        before, after = cases.take(np.array([case])), replace(cases, item_index=item_index).take(np.array([case]))
        for name in (*RECENT, NEIGHBOURS, OWN_NEIGHBOURS):
            for domain in DOMAINS:
                np.testing.assert_array_equal(
                    scorers(changed)[name](after, domain), scorers(members)[name](before, domain), err_msg=name
                )


def test_events_of_the_day_before_are_seen(dataset, members):
    """So it is the day that is left out above, and not everything of validation and test."""
    cases = contexts(dataset, "test")
    newest_case = int(np.argmax(cases.timestamp[cases.position]))
    table = dataset.part("validation")
    emptied = replace(dataset, validation=replace(table, item_index=np.zeros_like(table.item_index)))
    changed = fit_members(emptied, MAX_HISTORY)
    case = cases.take(np.array([newest_case]))
    differences = [
        np.abs(scorers(changed)["recent_4d"](case, domain) - scorers(members)["recent_4d"](case, domain)).max()
        for domain in DOMAINS
    ]
    assert max(differences) > 1e-3


def test_neighbours_are_counted_in_training_alone(dataset, members):
    tables = {
        part: replace(dataset.part(part), item_index=np.ones_like(dataset.part(part).item_index))
        for part in ("context", "validation", "test")
    }
    for found, wanted in zip(
        fit_members(replace(dataset, **tables), MAX_HISTORY).knn.table(), members.knn.table(), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_the_table_by_domain_keeps_every_neighbour_and_its_weight(dataset, members):
    item, weight = members.knn.table()
    by_domain = training.members._by_domain(item, weight, dataset.item_domain(), [1, 2, 3])
    for row in range(dataset.items + 1):
        wanted = {(int(one), float(strength)) for one, strength in zip(item[row], weight[row], strict=True) if one}
        found = set()
        for number in range(3):
            for one, strength in zip(by_domain[0][row, number], by_domain[1][row, number], strict=True):
                if one:
                    assert one in items_of(dataset, number)
                    found.add((int(one), float(strength)))
        assert found == wanted
