"""The audits pass on an honest run, and each fails on the fault that it is there for."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

import training.audit
from formats.errors import WorkFailed, WrongUse
from tests.reference.datasets import write_dataset
from training.altered_cases import reordered_ties
from training.audit import (
    YEAR,
    Audited,
    audit,
    audited,
    changed_future,
    equal_scores,
    id_order,
    other_ties,
    random_scores,
    reads_the_date,
    shuffled_histories,
    shuffled_targets,
)
from training.cases import contexts
from training.task import catalogue_of

NAMES = {
    "shuffled histories",
    "shuffled targets",
    "changed future",
    "id order",
    "other order of ties",
    "equal scores",
    "random scores",
}
USERS, ITEMS = 200, 60


def random():
    return np.random.default_rng(0)


def test_an_honest_run_passes_everything(tiny_trained):
    verdicts = audit(tiny_trained, max_cases=1000)
    assert {verdict.name for verdict in verdicts} == NAMES
    assert [verdict for verdict in verdicts if not verdict.passed] == []


def test_every_scorer_of_a_run_can_be_audited(tiny_trained):
    assert all(verdict.passed for verdict in audit(tiny_trained, 1000, "single"))
    with pytest.raises(WrongUse, match="ranks by cross, single, not by x"):
        audit(tiny_trained, 1000, "x")


def test_only_known_targets_with_a_known_history_are_asked_and_no_more_than_said(tiny_trained):
    cases = audited(tiny_trained, 7).cases
    assert (cases.target > 0).all()
    assert all(history.any() for history in cases.histories())
    assert np.bincount(cases.target_domain).max() == 7


def test_too_few_users_is_one_clear_line(tiny_trained, tmp_path):
    dataset = write_dataset(tmp_path / "d", tiny_trained.dataset.manifest.items_per_domain, [[1, 2]], test=[[3]])
    with pytest.raises(WorkFailed, match="fewer than 20 users"):
        audit(replace(tiny_trained, dataset=dataset), 1000)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Users who like every third item of one domain, their own third each; nothing of that is in order or popularity."""
    generator = np.random.default_rng(7)
    rows = [generator.permutation(np.arange(1 + user % 3, ITEMS + 1, 3))[:8].tolist() for user in range(USERS)]
    dataset = write_dataset(
        tmp_path_factory.mktemp("audited") / "d",
        {"A": ITEMS},
        [row[:6] for row in rows],
        test=[row[6:] for row in rows],
    )
    return dataset, contexts(dataset, "test")


def subject(world, scorer, **changes):
    dataset, cases = world
    catalogue = catalogue_of(dataset)
    honest = Audited(scorer, [catalogue.popular], catalogue, True, cases, cases, dataset.catalogue()["item_id"])
    return replace(honest, **changes)


def thirds(cases, domain):
    """Knows the user's third from the last event: personal, and honest."""
    last = cases.item_index[cases.position - 1]
    items = np.arange(1, ITEMS + 1)
    return ((items - last[:, None]) % 3 == 0).astype(np.float32) + np.float32(1e-3) * (items % 7)


def peeking(cases, domain):
    """Knows the target."""
    return thirds(cases, domain) + 5 * (np.arange(1, ITEMS + 1) == cases.target[:, None])


def test_a_personal_scorer_falls_to_popularity_with_somebody_elses_history(world):
    for question in (shuffled_histories, shuffled_targets):
        verdict = question(subject(world, thirds), random())
        assert verdict.passed, verdict
        assert verdict.figures["own"] > verdict.figures["altered"] + 0.1
        assert verdict.figures["own"] > verdict.figures["own_popularity"] + 0.1


def test_a_scorer_that_sees_its_target_does_not_fall(world):
    for question in (shuffled_histories, shuffled_targets):
        verdict = question(subject(world, peeking), random())
        assert not verdict.passed
        assert verdict.figures["altered"] > 0.9


def test_changing_the_future_changes_nothing_for_who_does_not_read_it(world):
    verdict = changed_future(subject(world, thirds), random())
    assert (verdict.value, verdict.bound, verdict.figures["cases"]) == (0, 0, 2 * USERS)


def next_event(cases, domain):
    """Reads one event too far, where there is one."""
    ends = cases.user_offsets[np.searchsorted(cases.user_offsets, cases.position, side="right")]
    following = np.minimum(cases.position + 1, ends - 1)
    return (np.arange(1, ITEMS + 1) == cases.item_index[following][:, None]).astype(np.float32)


@pytest.mark.parametrize("scorer", [peeking, next_event])
def test_reading_the_target_or_beyond_is_seen_case_by_case(world, scorer):
    verdict = changed_future(subject(world, scorer), random())
    assert not verdict.passed
    # A few draws are what was there already.
    assert verdict.value > 2 * USERS * (1 - 5 / ITEMS)


def test_one_changed_bit_is_enough(world):
    def nearly_honest(cases, domain):
        scores = thirds(cases, domain).astype(np.float32)
        scores[:, 3] = np.where(cases.target % 2, scores[:, 3], np.nextafter(scores[:, 3], np.float32(9)))
        return scores

    assert not changed_future(subject(world, nearly_honest), random()).passed


def with_ids(world, ids):
    return subject(world, thirds, item_ids=pl.Series(ids))


def test_ids_without_an_order_say_nothing(world):
    ids = np.random.default_rng(1).permutation([f"i{number:03}" for number in range(ITEMS)])
    assert id_order(with_ids(world, ids)).passed


def test_targets_that_follow_by_id_are_seen(tmp_path):
    """The fault of files whose ties were sorted by id: the next event is often the next higher id."""
    generator = np.random.default_rng(3)
    rows = [np.sort(generator.choice(np.arange(1, 1001), 8, replace=False)) for _ in range(USERS)]
    for row in rows:
        row[7] = row[6] + 1
    dataset = write_dataset(
        tmp_path / "d", {"A": 1001}, [row[:7].tolist() for row in rows], test=[[int(r[7])] for r in rows]
    )
    ordered = [f"i{number:04}" for number in range(1001)]
    cases = contexts(dataset, "test")
    verdict = id_order(subject((dataset, cases), thirds, item_ids=pl.Series(ordered)))
    assert not verdict.passed
    assert verdict.figures["after"] > 0.9
    shuffled = np.random.default_rng(1).permutation(ordered)
    assert id_order(subject((dataset, cases), thirds, item_ids=pl.Series(shuffled))).passed


def test_variants_of_one_product_are_neighbours_on_both_sides_and_no_fault(tmp_path):
    """Ids five up or down are chosen next, up as often as down."""
    generator = np.random.default_rng(4)
    last = generator.integers(10, 990, USERS)
    target = last + generator.choice([-5, -4, -3, -2, -1, 1, 2, 3, 4, 5], USERS)
    rows = [[int(item)] for item in last]
    dataset = write_dataset(tmp_path / "d", {"A": 1000}, rows, test=[[int(item)] for item in target])
    ids = pl.Series([f"i{number:04}" for number in range(1000)])
    verdict = id_order(subject((dataset, contexts(dataset, "test")), thirds, item_ids=ids))
    assert verdict.passed
    assert verdict.figures["before"] > 10 * verdict.figures["chance"]


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    """The target is always the item after the last one of a history, all of which has one time."""
    generator = np.random.default_rng(5)
    rows = [generator.choice(np.arange(1, ITEMS), 5, replace=False).tolist() for _ in range(USERS)]
    targets = [[row[-1] + 1] for row in rows]
    dataset = write_dataset(tmp_path_factory.mktemp("tied") / "d", {"A": ITEMS}, rows, test=targets, repeats="keep")
    cases = contexts(dataset, "test")
    return dataset, replace(cases, timestamp=cases.timestamp // 10**6)


def after_the_last(cases, domain):
    last = cases.item_index[cases.position - 1]
    return (np.arange(1, ITEMS + 1) == last[:, None] + 1).astype(np.float32)


def test_who_lives_on_the_order_of_ties_loses_with_another_one(tied):
    retied = reordered_ties(tied[1], random())
    verdict = other_ties(subject(tied, after_the_last, retied=retied, exclude_seen=False))
    assert not verdict.passed
    assert verdict.figures["difference"] == pytest.approx(-4 / 5, abs=0.1)  # one of five is the last by chance
    assert verdict.figures["low"] < verdict.figures["difference"] < verdict.figures["high"] < 0


def test_another_order_of_ties_is_nothing_or_noise_to_who_does_not(tied):
    retied = reordered_ties(tied[1], random())
    assert other_ties(subject(tied, thirds, retied=tied[1])).value == 0

    def noise_by_the_last(cases, domain):
        return (np.arange(1, ITEMS + 1) * cases.item_index[cases.position - 1][:, None] * 7919 % 101).astype(np.float32)

    verdict = other_ties(subject(tied, noise_by_the_last, retied=retied))
    assert verdict.passed
    assert verdict.value > 0


def test_equal_scores_have_every_target_in_the_middle_whatever_is_left_out(world):
    verdict = equal_scores(subject(world, thirds))
    assert (verdict.value, verdict.bound) == (0, 0)
    assert ITEMS - 8 < verdict.figures["candidates"] < ITEMS  # the six or seven that the user has had are none


def test_ranks_that_favour_the_target_among_equals_are_seen(world, monkeypatch):
    def optimistic(cases, scorer, catalogue, exclude_seen):
        return np.ones(len(cases))

    monkeypatch.setattr(training.audit, "rank_cases", optimistic)
    assert equal_scores(subject(world, thirds)).value == 2 * USERS
    assert not random_scores(subject(world, thirds), random()).passed


def test_lots_hit_as_often_as_there_are_places(world):
    verdict = random_scores(subject(world, thirds), random())
    assert verdict.passed
    # Ten of 60 less the six or seven that were seen.
    assert verdict.figures["chance"] == pytest.approx((10 / 54 + 10 / 53) / 2)


def test_a_scorer_that_reads_the_date_is_told_from_one_that_reads_ages(world):
    _, cases = world

    def by_date(cases, domain):
        return np.tile(cases.timestamp[cases.position][:, None] % 1009, (1, ITEMS)).astype(np.float32)

    def by_age(cases, domain):
        age = cases.timestamp[cases.position] - cases.timestamp[cases.position - 1]
        return np.tile(age[:, None], (1, ITEMS)).astype(np.float32)

    assert reads_the_date(by_date, cases)
    assert not reads_the_date(by_age, cases)
    assert not reads_the_date(thirds, cases)


def test_who_reads_the_date_is_compared_with_what_is_popular_these_days(tiny_trained):
    assert len(audited(tiny_trained, 1000).popularities) == 1

    class Dated:
        def __init__(self, objective):
            self.objective = objective

        def scorers(self, catalogue):
            def score(cases, domain):
                day = (cases.timestamp[cases.position] // YEAR).astype(np.float32)
                return catalogue.popular(cases, domain) + day[:, None]

            return {"dated": score}

    assert len(audited(replace(tiny_trained, objective=Dated(None)), 1000).popularities) > 1
