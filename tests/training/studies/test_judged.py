"""Scorers judged by the truth: who knows it is at the floor, who knows nothing is at chance."""

import math

import numpy as np
import polars as pl
import pytest

from tests.training.studies.test_known_worlds import SMALL
from training.baselines.config import PerDomainConfig
from training.cases import contexts
from training.run import open_trained
from training.studies.judged import judged, kept, seen_nll, single_scorer
from training.studies.known_worlds import known_world
from training.studies.pieces import train_piece


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return known_world(SMALL, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def cases(known):
    return contexts(known.dataset, "test")


@pytest.fixture(scope="module")
def table(known, cases):
    def exact(cases, domain):
        return np.log(np.maximum(known.probabilities(cases, domain), 1e-30)).astype(np.float32)

    def equal(cases, domain):
        return np.zeros((len(cases), known.dataset.items_per_domain[domain]), dtype=np.float32)

    return judged(known, cases, {"exact": exact, "equal": equal}, {"shares": exact})


def test_the_truth_costs_the_floor_and_nothing_ranks_better(table):
    assert table["exact_nll"].to_numpy() == pytest.approx(table["floor"].to_numpy(), abs=1e-5)
    assert (table["equal_nll"] > table["floor"] - 1e-9).all()
    assert (table["exact_ndcg"] >= table["equal_ndcg"] - 1e-9).all()
    assert table["shares_ndcg"].equals(table["exact_ndcg"])
    assert "shares_nll" not in table.columns


def test_who_knows_nothing_is_at_chance(table, known):
    sizes = np.array(known.dataset.items_per_domain)[table["domain"].to_numpy()]
    assert table["equal_nll"].to_numpy() == pytest.approx(np.log(sizes))
    assert table["equal_seen"].to_numpy() == pytest.approx(np.log(sizes))
    # All share the middle place.
    assert table["equal_ndcg"].to_numpy() == pytest.approx(1 / np.log2((sizes + 1) / 2 + 1))


def test_what_happened_agrees_with_what_was_expected_on_average(table):
    gap = table["exact_seen"] - table["exact_nll"]
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))
    assert gap.std() > 0.1


def test_noise_has_no_luck_in_expectation(table):
    noise = table.filter(pl.col("domain") == 0)
    assert noise["exact_ndcg"].std() == pytest.approx(0, abs=1e-9)


def test_independent_networks_answer_each_on_its_own_domain(known, cases, tmp_path):
    config = PerDomainConfig(dim=8, heads=1, layers=1, max_history=9, epochs=1, batch_windows=64, seed=1)
    train_piece(tmp_path / "run", config, known.dataset)
    trained = open_trained(tmp_path / "run")
    scorer = single_scorer(trained)
    domain = 2
    own = cases.take(np.flatnonzero(cases.target_domain == domain + 1)[:50])
    seen = [
        [item - 9 for item in history if 10 <= item <= 16][-9:] for history in map(list, own.histories())
    ]  # items 10 to 16 are those of the third domain
    scores = scorer(own, domain)
    assert scores.shape == (50, 7)
    rows = {}
    for history, row in zip(seen, scores, strict=True):
        rows.setdefault(tuple(history), []).append(row)
    assert all(np.allclose(row, same[0], atol=1e-5) for same in rows.values() for row in same)
    # Where popularity would answer, the network does, from SOS.
    nothing = own.take(np.zeros(1, dtype=np.int64))
    assert np.ptp(scorer(nothing, domain)) > 0
    first = np.array([known.dataset.first_item(number) for number in (1, 2, 3)])
    costs = seen_nll(scorer, own, first)
    log_share = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    assert costs == pytest.approx(-log_share[np.arange(50), own.target - 10], abs=1e-4)


def test_a_kept_table_is_made_once(tmp_path):
    made = []

    def make():
        made.append(1)
        return pl.DataFrame({"a": [1]})

    assert kept(tmp_path / "t.parquet", make).equals(kept(tmp_path / "t.parquet", make))
    assert len(made) == 1
