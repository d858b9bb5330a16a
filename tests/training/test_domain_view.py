import numpy as np
import polars as pl
import pytest

from tests.reference.datasets import write_dataset
from training.batches import Batches
from training.cases import contexts
from training.domain_view import one_domain
from training.manifest import PARTS

SIZES = {"A": 3, "B": 4, "C": 2}  # items 1-3, 4-7, 8-9


@pytest.fixture
def dataset(tmp_path):
    return write_dataset(
        tmp_path / "d",
        SIZES,
        train=[[1, 4, 3, 5, 8], [2, 3], [7, 6, 4, 9]],
        context=[[], [], [], [5, (0, 2)]],
        validation=[[6, 1], [(0, 2), 4], [9]],
        test=[[7], [5], [(0, 1), 6], [4], [8]],
    )


def rows(table):
    return [list(zip(*(array[table.of_user(u)].tolist() for array in table_arrays(table)), strict=True))
            for u in range(table.users)]  # fmt: skip


def table_arrays(table):
    return table.item_index, table.domain, table.timestamp


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_view_holds_the_events_of_its_domain_in_every_part_and_nothing_else(dataset, number):
    view = one_domain(dataset, number)
    first = dataset.first_item(number)
    for part in PARTS:
        expected = [
            [(item - first + 1 if item else 0, 1, time) for item, domain, time in row if domain == number]
            for row in rows(dataset.part(part))
        ]
        assert rows(view.part(part)) == expected
        for array, whole in zip(table_arrays(view.part(part)), table_arrays(dataset.part(part)), strict=True):
            assert array.dtype == whole.dtype


def test_a_view_is_a_dataset_of_one_domain(dataset):
    view = one_domain(dataset, 2)
    assert view.domains == ("B",)
    assert (view.items, view.items_per_domain) == (4, (4,))
    assert view.all_user_ids.to_list() == dataset.all_user_ids.to_list()
    catalogue = view.catalogue()
    assert catalogue["item_index"].to_list() == [1, 2, 3, 4]
    assert catalogue["item_id"].to_list() == ["B-1", "B-2", "B-3", "B-4"]
    assert (
        catalogue["popularity"].to_list() == dataset.catalogue().filter(pl.col("domain") == "B")["popularity"].to_list()
    )
    assert catalogue.schema == dataset.catalogue().schema
    assert view.manifest.options == dataset.manifest.options
    assert view.manifest.parts["train"].events == view.train.events == 5
    assert view.manifest.parts["train"].users == 2
    assert view.manifest.parts["validation"].cases == 3


def test_views_are_told_apart_by_their_fingerprints(dataset):
    found = {one_domain(dataset, number).fingerprint for number in (1, 2, 3)}
    assert len(found | {dataset.fingerprint}) == 4
    assert one_domain(dataset, 1).fingerprint in found


def test_cases_of_a_view_are_those_of_the_domain_with_its_own_history(dataset):
    view, whole = contexts(one_domain(dataset, 2), "test"), contexts(dataset, "test")
    of_domain = np.flatnonzero(whole.target_domain == 2)
    assert view.user.tolist() == whole.user[of_domain].tolist()
    for case, number in enumerate(of_domain):
        events = slice(whole.start[number], whole.position[number])
        own = whole.item_index[events][whole.domain[events] == 2]
        assert view.history(case).tolist() == np.where(own > 0, own - 3, 0).tolist()
        assert int(view.target[case]) == max(int(whole.target[number]) - 3, 0)


def test_users_without_events_of_the_domain_are_no_windows(dataset):
    windows = Batches(one_domain(dataset, 3), slots=4, batch_windows=8, every_window=True, seed=0).windows(1)
    assert sorted(windows.user.tolist()) == [0, 2]
