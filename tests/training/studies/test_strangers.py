"""Datasets with a domain without relation: everything else must stay as it was."""

import numpy as np
import pytest

from formats.errors import WorkFailed, WrongUse
from tests.reference.datasets import write_dataset
from training.cases import contexts
from training.dataset import open_dataset
from training.manifest import PARTS
from training.studies.known_worlds import world_dataset
from training.studies.strangers import NOISE, NOISE_ITEMS, NOISE_SHARE, with_exchanged_users, with_noise
from training.truth import five_domains

EXCHANGED = "related-dense"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return world_dataset(five_domains(700, 0), tmp_path_factory.mktemp("strangers") / "dataset")


@pytest.fixture(scope="module")
def exchanged(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("strangers") / "exchanged"
    with_exchanged_users(dataset, EXCHANGED, path)
    return open_dataset(path)


@pytest.fixture(scope="module")
def noisy(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("strangers") / "noise"
    with_noise(dataset, path)
    return open_dataset(path)


def rows(dataset, part):
    """(user id, item id or "", domain, time) of every event, in order."""
    table, ids = dataset.part(part), dataset.all_user_ids.to_list()
    user = np.repeat(np.arange(table.users), np.diff(table.user_offsets))
    items = ["", *dataset.catalogue()["item_id"]]
    columns = (user, table.item_index, table.domain, table.timestamp)
    return [(ids[u], items[i], dataset.domains[d - 1], int(t)) for u, i, d, t in zip(*columns, strict=True)]


def of_others(dataset, part, without):
    return sorted(row for row in rows(dataset, part) if row[2] not in without)


@pytest.mark.parametrize("part", PARTS)
def test_exchange_leaves_every_event_of_the_other_domains_where_it_was(dataset, exchanged, part):
    assert of_others(exchanged, part, {EXCHANGED}) == of_others(dataset, part, {EXCHANGED})


@pytest.mark.parametrize("part", PARTS)
def test_exchange_moves_whole_histories_of_the_domain_to_others_in_the_same_part(dataset, exchanged, part):
    before, after = ([row for row in rows(one, part) if row[2] == EXCHANGED] for one in (dataset, exchanged))
    assert sorted(row[1:] for row in before) == sorted(row[1:] for row in after)
    if part == "train":
        histories = [{}, {}]
        for history, own in zip(histories, (before, after), strict=True):
            for user, item, _, time in own:
                history.setdefault(user, []).append((time, item))
        was, now = ({tuple(one) for one in history.values()} for history in histories)
        assert was == now
        same = sum(histories[0].get(user) == events for user, events in histories[1].items())
        assert same < 0.02 * len(histories[1])


def test_events_of_a_user_are_in_order_of_time(exchanged, noisy):
    for dataset in (exchanged, noisy):
        cases = contexts(dataset, "test")
        for start, position in zip(cases.start, cases.position, strict=True):
            assert (np.diff(cases.timestamp[start : position + 1]) >= 0).all()


def test_the_catalogue_counts_training_as_before(dataset, exchanged):
    assert exchanged.catalogue().equals(dataset.catalogue())
    assert exchanged.fingerprint != dataset.fingerprint
    exchanged.verify()


@pytest.mark.parametrize("part", PARTS)
def test_noise_leaves_every_other_event_where_it_was(dataset, noisy, part):
    assert of_others(noisy, part, {NOISE}) == of_others(dataset, part, {})


def test_noise_is_a_domain_of_its_own_with_a_quarter_of_the_events(dataset, noisy):
    assert noisy.domains == (*dataset.domains, NOISE)
    assert noisy.items_per_domain == (*dataset.items_per_domain, NOISE_ITEMS)
    events = np.array([[noisy.part(part).events, dataset.part(part).events] for part in PARTS]).sum(0)
    assert 1 - events[1] / events[0] == pytest.approx(NOISE_SHARE, abs=0.01)
    counted = np.bincount(noisy.train.item_index, minlength=noisy.items + 1)[1:]
    assert noisy.catalogue()["popularity"].to_list() == counted.tolist()
    own = noisy.catalogue().filter(domain=NOISE)["popularity"].to_numpy()
    assert (np.diff(own) <= 0).all()
    noisy.verify()


def test_nobody_has_an_item_of_noise_twice(noisy):
    noise = [row[:2] for part in PARTS for row in rows(noisy, part) if row[2] == NOISE]
    assert len(set(noise)) == len(noise)


def test_what_cannot_be_altered_is_refused(dataset, tiny_dataset, tmp_path):
    with pytest.raises(WrongUse, match="no domain Books; it has half-related"):
        with_exchanged_users(dataset, "Books", tmp_path / "x")
    with pytest.raises(WorkFailed, match="must be split by time"):
        with_exchanged_users(tiny_dataset, "Books", tmp_path / "x")
    few = write_dataset(tmp_path / "few", {"A": 3}, [[1, 2, 3]])
    with pytest.raises(WorkFailed, match="must be split by time"):
        with_noise(few, tmp_path / "x")
