"""Whether the demo's answer is right: compared with the sample, the bundle and the checkpoint."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from formats.bundle import newest_bundle
from syncrec.demo_answer import Household, K
from training.cases import contexts
from training.export import TOLERANCE, answers_agree, ask
from training.methods import syncrec_config
from training.run import TrainedRun, open_trained
from training.served_ranker import served_ranker


def differences(household: Household, answer: dict[str, Any], run: Path, models: Path) -> list[str]:
    """Everything that is wrong with the answer, in words; empty when it is right."""
    trained = open_trained(run)
    items = newest_bundle(models).items()
    found = list(_wrong_form(household, answer, trained, items))
    return found or list(_wrong_scores(household, answer, trained, items))


def _wrong_form(
    household: Household, answer: dict[str, Any], trained: TrainedRun, items: pl.DataFrame
) -> Iterator[str]:
    if answer["source"] != "model":
        yield f"source is {answer['source']}, not model"
    if tuple(answer["domains"]) != trained.dataset.domains:
        yield f"domains are {list(answer['domains'])}, not {list(trained.dataset.domains)}"
    known = set(items.select("domain", "item_id").iter_rows())
    bought = set(household.bought.select("domain", "item_id").iter_rows())
    for domain, candidates in answer["domains"].items():
        ids = [(domain, item["item_id"]) for item in candidates]
        left = sum(1 for key in known if key[0] == domain and key not in bought)
        if len(ids) != min(K, left):
            yield f"{domain}: {len(ids)} items, not {min(K, left)}"
        if len(set(ids)) != len(ids):
            yield f"{domain}: an item stands twice"
        if not set(ids) <= known:
            yield f"{domain}: items that the domain does not have: {set(ids) - known}"
        if set(ids) & bought:
            yield f"{domain}: items bought before: {set(ids) & bought}"
        if [item["rank"] for item in candidates] != list(range(1, len(ids) + 1)):
            yield f"{domain}: ranks are not 1 to {len(ids)}"
        if any(upper["score"] < lower["score"] for upper, lower in pairwise(candidates)):
            yield f"{domain}: scores do not fall"


def _wrong_scores(
    household: Household, answer: dict[str, Any], trained: TrainedRun, items: pl.DataFrame
) -> Iterator[str]:
    dataset = trained.dataset
    cases = contexts(dataset, "test")
    user = dataset.all_user_ids.to_list().index(household.user_id)
    history = cases.item_index[cases.user_offsets[user] : cases.user_offsets[user + 1]]
    seen = history[history > 0]
    served = served_ranker(trained)
    wanted = ask(served, [history], [seen], syncrec_config(trained.run.config).max_history, dataset.items, K)
    index_of = {key: index for index, key in enumerate(items.select("domain", "item_id").iter_rows(), start=1)}
    scores, index = np.full(wanted[0].shape, -np.inf, dtype=np.float32), np.zeros(wanted[1].shape, dtype=np.int32)
    for place, (domain, candidates) in enumerate(answer["domains"].items()):
        for column, item in enumerate(candidates):
            scores[0, place, column], index[0, place, column] = item["score"], index_of[domain, item["item_id"]]
    if not answers_agree(wanted, (scores, index), TOLERANCE, shares=served.mixture is not None):
        yield f"scores or items differ from the checkpoint's by more than {TOLERANCE}"
