import json
import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from formats.history import encode_histories
from tests.reference.datasets import write_dataset
from tests.reference.ranks import best, mid_rank
from training.config import TrainingConfig
from training.evaluate import Protocol, Validation, evaluate
from training.methods import build_objective
from training.run import Run, TrainedRun
from training.task import catalogue_of, drops_repeats

CUTS = (5, 10, 20)


@pytest.fixture(scope="module")
def result(tiny_trained):
    return evaluate(tiny_trained, Protocol())


def slow_cases(dataset, part="test"):
    """Every event of a part with everything its user did before, joined in plain Python."""
    order = ("train", "context", "validation", "test")
    tables = [dataset.part(name) for name in order[: order.index(part) + 1]]
    cases = []
    for user in range(tables[-1].users):
        history = []
        for table in tables[:-1]:
            if user < table.users:
                history += table.item_index[table.of_user(user)].tolist()
        here = tables[-1].of_user(user)
        for target, domain in zip(tables[-1].item_index[here], tables[-1].domain[here], strict=True):
            cases.append((list(history), int(target), int(domain) - 1))
            history.append(int(target))
    return cases


def slow_rank(trained, history, target, domain, exclude_seen=True, popularity=False):
    """One case alone: scores of every item of the domain, then a loop."""
    dataset, network = trained.dataset, trained.objective.network
    if target == 0:
        return math.inf
    first = dataset.first_item(domain + 1)
    items = range(first, first + dataset.items_per_domain[domain])
    if popularity or not any(history):
        counts = dataset.catalogue()["popularity"].to_list()
        scores = [counts[item - 1] for item in items]
    else:
        encoded = encode_histories([np.array(history, dtype=np.int32)], trained.run.config.max_history, dataset.items)
        with torch.no_grad():
            user = network.cross_next(torch.from_numpy(encoded))[0]
            scores = (network.item_vectors()[items.start : items.stop] @ user).tolist()
    if exclude_seen:
        scores = [
            -math.inf if item in history and item != target else score
            for item, score in zip(items, scores, strict=True)
        ]
    return mid_rank(scores, target - first)


def slow_metrics(ranks):
    named = {
        "hr": lambda rank, k: 1.0 if rank <= k else 0.0,
        "ndcg": lambda rank, k: 1 / math.log2(rank + 1) if rank <= k else 0.0,
        "mrr": lambda rank, k: 1 / rank if rank <= k else 0.0,
    }
    return {f"{name}@{k}": sum(f(r, k) for r in ranks) / len(ranks) for name, f in named.items() for k in CUTS}


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_it_agrees_with_one_case_at_a_time(tiny_trained, exclude_seen):
    result = evaluate(tiny_trained, Protocol(exclude_seen=exclude_seen))
    cases = slow_cases(tiny_trained.dataset)
    for task in ("cross", "popularity"):
        ranks = [slow_rank(tiny_trained, *case, exclude_seen, task == "popularity") for case in cases]
        for number, name in enumerate(tiny_trained.dataset.domains):
            own = [rank for rank, case in zip(ranks, cases, strict=True) if case[2] == number]
            assert result["domains"][name][task] == pytest.approx(slow_metrics(own))
        assert result["overall"][task] == pytest.approx(slow_metrics(ranks))


def test_every_case_is_counted_once_with_its_cold_and_popularity_answers(tiny_trained, result):
    cases = slow_cases(tiny_trained.dataset)
    for number, name in enumerate(tiny_trained.dataset.domains):
        own = [case for case in cases if case[2] == number]
        table = result["domains"][name]
        assert table["n"] == len(own) > 0
        assert table["cold"] == sum(target == 0 for _, target, _ in own)
        assert table["answered_by_popularity"] == sum(target > 0 and not any(h) for h, target, _ in own)
    assert result["overall"]["n"] == len(cases)
    assert result["overall"]["cold"] == sum(table["cold"] for table in result["domains"].values()) > 0
    assert result["overall"]["answered_by_popularity"] > 0


def test_macro_is_the_mean_of_the_domains(result):
    for task in ("cross", "single", "popularity"):
        for key, value in result["macro"][task].items():
            assert value == pytest.approx(np.mean([table[task][key] for table in result["domains"].values()]))


def test_it_says_how_it_was_done_and_carries_gap_and_weight(tiny_trained, result):
    assert result["part"] == "test"
    assert result["seen_items"] == "excluded"
    assert result["checkpoint_epoch"] == tiny_trained.notes["epoch"]
    gap = tiny_trained.objective.gap
    assert [table["lambda"] for table in result["domains"].values()] == gap.average.tolist()
    assert [table["weight"] for table in result["domains"].values()] == gap.weights().tolist()
    assert result["served"] == "cross"
    assert result["max_cases"] is None
    assert evaluate(tiny_trained, Protocol(exclude_seen=False))["seen_items"] == "kept"


def test_at_most_so_many_cases_per_domain_are_drawn_the_same_ones_every_time(tiny_trained, result):
    one, other = (evaluate(tiny_trained, Protocol(max_cases=4)) for _ in range(2))
    assert one == other
    for name, table in one["domains"].items():
        assert table["n"] == min(4, result["domains"][name]["n"])


def test_every_run_of_a_dataset_is_asked_the_same_cases(tiny_trained):
    config = replace(tiny_trained.run.config, seed=tiny_trained.run.config.seed + 1)
    other = replace(tiny_trained, run=replace(tiny_trained.run, config=config))
    assert evaluate(other, Protocol(max_cases=4)) == evaluate(tiny_trained, Protocol(max_cases=4))


def test_sampled_ranking_is_a_further_column(tiny_trained, result):
    sampled = evaluate(tiny_trained, Protocol(sampled=20))
    published = sampled.pop("as_published")
    assert sampled == result
    assert published["candidates"] == 20
    assert published["domains"].keys() == result["domains"].keys()
    for scorer in ("cross", "single", "popularity"):
        values = published["macro"][scorer]["ndcg@10"]
        assert values == pytest.approx(np.mean([table[scorer]["ndcg@10"] for table in published["domains"].values()]))
        assert values > result["macro"][scorer]["ndcg@10"]  # fewer candidates, better ranks: why it is not comparable
        assert published["domains"]["Toys"][scorer] == result["domains"]["Toys"][scorer]  # all 6 items are drawn
        assert published["overall"][scorer]["hr@10"] > result["overall"][scorer]["hr@10"]


def test_ranking_among_all_items_agrees_with_one_case_at_a_time(tiny_trained):
    result = evaluate(tiny_trained, Protocol(among="catalogue", exclude_seen=False))
    cases = slow_cases(tiny_trained.dataset)
    counts = tiny_trained.dataset.catalogue()["popularity"].to_list()
    ranks = [mid_rank(counts, target - 1) if target else math.inf for _, target, _ in cases]
    assert result["overall"]["popularity"] == pytest.approx(slow_metrics(ranks))
    assert "all domains" in result["ranking"]
    assert "beyond_accuracy" not in result
    among_own = evaluate(tiny_trained, Protocol(exclude_seen=False))
    assert result["overall"]["cross"]["mrr@20"] < among_own["overall"]["cross"]["mrr@20"]


def test_evaluating_twice_gives_the_same_numbers(tiny_trained, result):
    assert evaluate(tiny_trained, Protocol()) == result


def test_what_the_lists_are_like_agrees_with_a_loop(tiny_trained, result):
    dataset = tiny_trained.dataset
    counts = dataset.catalogue()["popularity"].to_list()
    for number, name in enumerate(dataset.domains):
        first = dataset.first_item(number + 1)
        items = range(first, first + dataset.items_per_domain[number])
        seen_by = [history for history, target, domain in slow_cases(dataset) if domain == number and target]
        targets = [target for _, target, domain in slow_cases(dataset) if domain == number and target]
        lists = []
        for history, target in zip(seen_by, targets, strict=True):
            candidates = [item for item in items if item not in history or item == target]
            popularity = {item: counts[item - 1] for item in candidates}
            lists.append([item for _, item in best(popularity, candidates, 10)])
        found = result["beyond_accuracy"]["domains"][name]
        assert found["n"] == len(lists)
        assert found["popularity"]["coverage"] == pytest.approx(len(set().union(*lists)) / len(items))
        total = sum(counts[item - 1] for item in items)
        bits = [-math.log2(counts[item - 1] / total) for row in lists for item in row]
        assert found["popularity"]["novelty"] == pytest.approx(np.mean(bits))


def test_only_scores_of_probability_have_a_calibration_error(result):
    macro = result["beyond_accuracy"]["macro"]
    assert 0 <= macro["cross"]["calibration_error"] <= 1
    assert macro["popularity"]["calibration_error"] is None


def test_the_mean_of_domains_holds_for_the_lists_too(result):
    domains = result["beyond_accuracy"]["domains"].values()
    for measure in ("coverage", "gini", "novelty", "popularity_lift"):
        assert result["beyond_accuracy"]["macro"]["single"][measure] == pytest.approx(
            np.mean([table["single"][measure] for table in domains])
        )


def test_lists_are_as_varied_as_their_categories(tmp_path):
    dataset = write_dataset(tmp_path / "d", {"A": 4, "B": 2}, [[1, 2, 5], [3, 4, 6]], test=[[3], [1]])
    assert evaluate(untrained(dataset), Protocol())["beyond_accuracy"]["domains"]["A"]["cross"]["diversity"] is None
    table = dataset.catalogue().with_columns(pl.Series("category", ["x", "y", None, "x", "y", "y"]))
    table.write_parquet(dataset.path / "items.parquet")
    found = evaluate(untrained(dataset), Protocol())["beyond_accuracy"]
    # User 0 has had 1 and 2: a list of 3 (no category) and 4 has no pair; user 1, asked for 1, has 1 and 2 left.
    assert found["domains"]["A"]["cross"]["diversity"] == 1
    assert found["domains"]["B"]["cross"] is None
    assert found["macro"]["cross"]["diversity"] == 1


def test_slices_of_each_kind_hold_every_case_once(result):
    for name, table in result["domains"].items():
        for bins in result["slices"]["domains"][name].values():
            assert sum(values["n"] for values in bins.values()) == table["n"]
    assert result["slices"]["overall"]["target_count"]["0"]["n"] == result["overall"]["cold"]
    for bins in result["slices"]["overall"].values():
        weighted = sum(values["n"] * values["cross"]["ndcg@10"] for values in bins.values() if values["n"])
        assert weighted / result["overall"]["n"] == pytest.approx(result["overall"]["cross"]["ndcg@10"])


def test_the_result_is_json(result):
    json.dumps(result, allow_nan=False)


def untrained(dataset):
    config = TrainingConfig(dim=8, max_history=4, experts=2, layers=1, mixture=False)
    objective = build_objective(config, dataset).eval()
    return TrainedRun(Run(dataset.path, config, dataset.path, dataset.fingerprint), dataset, objective, {"epoch": 1})


def test_a_domain_without_test_events_has_no_metrics_and_does_not_count_in_the_mean(tmp_path):
    dataset = write_dataset(
        tmp_path / "d", {"A": 4, "B": 4}, [[1, 2, 5], [3, 6]], validation=[[3], [4]], test=[[4], [1]]
    )
    result = evaluate(untrained(dataset), Protocol())
    assert result["domains"]["B"]["n"] == 0
    assert result["domains"]["B"]["cross"] is None
    assert result["macro"]["cross"] == result["domains"]["A"]["cross"]


def test_without_any_test_event_there_are_no_metrics_at_all(tmp_path):
    dataset = write_dataset(tmp_path / "d", {"A": 4, "B": 4}, [[1, 2, 5], [3, 6]])
    result = evaluate(untrained(dataset), Protocol())
    assert result["overall"]["n"] == 0
    assert result["overall"]["cross"] is None
    assert result["macro"]["cross"] is None


def score(trained, max_cases=10**6):
    config = trained.run.config
    return Validation(trained.dataset, max_cases, config.seed).score(trained.objective)


def test_the_validation_score_is_the_mean_ndcg_at_10_of_the_domains(tiny_trained):
    exclude = drops_repeats(tiny_trained.dataset)
    cases = slow_cases(tiny_trained.dataset, "validation")
    per_domain = []
    for number in range(3):
        ranks = [slow_rank(tiny_trained, *case, exclude) for case in cases if case[2] == number]
        per_domain.append(slow_metrics(ranks)["ndcg@10"])
    assert score(tiny_trained) == pytest.approx(np.mean(per_domain))


def test_validation_leaves_the_random_state_and_the_network_alone(tiny_trained):
    before = {name: values.clone() for name, values in tiny_trained.objective.state_dict().items()}
    state = torch.get_rng_state()
    assert score(tiny_trained, 20) == score(tiny_trained, 20)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(values, before[name]) for name, values in tiny_trained.objective.state_dict().items())


def test_without_validation_events_the_score_is_zero(tmp_path):
    dataset = write_dataset(tmp_path / "d", {"A": 4, "B": 4}, [[1, 2, 5], [3, 6]])
    assert score(untrained(dataset)) == 0.0


def test_seen_items_are_no_candidates_exactly_where_prepare_dropped_repeats(tmp_path):
    for repeats in ("drop", "keep"):
        dataset = write_dataset(tmp_path / repeats, {"A": 4}, [[1, 2]], repeats=repeats)
        assert drops_repeats(dataset) == (repeats == "drop")


def test_the_catalogue_gives_padding_no_popularity(tiny_dataset):
    catalogue = catalogue_of(tiny_dataset)
    assert catalogue.items_per_domain == tiny_dataset.items_per_domain
    assert catalogue.popularity.tolist() == [0, *tiny_dataset.catalogue()["popularity"].to_list()]
