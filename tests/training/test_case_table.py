import math

import numpy as np
import polars as pl
import pytest

from tests.reference.datasets import write_dataset
from training.case_table import KEY, case_table, ranks_of
from training.cases import contexts
from training.slices import slices
from training.task import catalogue_of

TRAIN = [[1, 5, 1, 2], [2, 1, 6]]
SIZES = {"A": 4, "B": 4}  # items 1-4 and 5-8


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    dataset = write_dataset(
        tmp_path_factory.mktemp("d") / "d", SIZES, TRAIN, validation=[[3], []], test=[[1, (0, 1), 5], [2], [6, 1]]
    )
    cases = contexts(dataset, "test")
    ranks = {"cross": np.arange(1.0, len(cases) + 1), "popularity": np.full(len(cases), math.inf)}
    return case_table(dataset, catalogue_of(dataset), cases, ranks)


def test_a_row_says_whose_case_it_is_and_what_was_known(table):
    assert table.select(*KEY, "own_history", "target_count").rows() == [
        ("u0", "A", 5, 4, 3),  # before: 1 1 2 3 of A; item 1 is in training three times
        ("u0", "A", 6, 5, 0),  # an item that training does not know
        ("u0", "B", 7, 1, 1),  # the unknown one counts nowhere
        ("u1", "A", 3, 2, 2),
        ("u2", "B", 0, 0, 1),  # a user whom training does not know
        ("u2", "A", 1, 0, 3),
    ]


def test_user_domain_and_place_name_a_case_alone(table):
    assert table.select(KEY).is_unique().all()


def test_domains_keep_their_order_and_times_their_unit(table):
    assert table["domain"].dtype.categories.to_list() == list(SIZES)
    assert table["timestamp"].dtype == pl.Datetime("us", "UTC")
    assert table["timestamp"].to_physical().to_list() == [3 * 10**6 + n for n in range(6)]


def test_ranks_come_back_by_the_name_of_their_scorer(table):
    assert ranks_of(table, "cross").tolist() == [1, 2, 3, 4, 5, 6]
    assert np.isposinf(ranks_of(table, "popularity")).all()


def test_slices_by_hand(table):
    found = slices(table, ["cross"])
    assert {name: values["n"] for name, values in found["own_history"].items()} == {
        "0": 2,
        "1-2": 2,
        "3-5": 2,
        "more": 0,
    }
    assert {name: values["n"] for name, values in found["target_count"].items()} == {
        "0": 1,
        "1-5": 5,
        "6-20": 0,
        "more": 0,
    }
    assert found["own_history"]["1-2"]["cross"] == {
        "ndcg@10": pytest.approx((1 / math.log2(3 + 1) + 1 / math.log2(4 + 1)) / 2),
        "hr@10": 1,
    }
    assert found["target_count"]["0"]["cross"]["ndcg@10"] == pytest.approx(1 / math.log2(2 + 1))
    assert found["own_history"]["more"] == {"n": 0, "cross": None}


@pytest.mark.parametrize(
    ("column", "count", "name"),
    [
        ("own_history", 0, "0"),
        ("own_history", 1, "1-2"),
        ("own_history", 2, "1-2"),
        ("own_history", 3, "3-5"),
        ("own_history", 5, "3-5"),
        ("own_history", 6, "more"),
        ("target_count", 0, "0"),
        ("target_count", 5, "1-5"),
        ("target_count", 6, "6-20"),
        ("target_count", 20, "6-20"),
        ("target_count", 21, "more"),
        ("target_count", 10**9, "more"),
    ],
)
def test_every_count_is_in_one_slice(table, column, count, name):
    one = table.head(1).with_columns(pl.lit(count).alias(column))
    assert {name: values["n"] for name, values in slices(one, ["cross"])[column].items() if values["n"]} == {name: 1}
