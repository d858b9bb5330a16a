"""All estimates of one world of known truth, and what the remedy makes of each.

<folder of the world>/            see `training.studies.known_truth`
    watched.run                   plain joint training whose gradients are compared
    without-<domain>/             dataset without this domain, and joint training on it
    remedy-<estimator>.run        joint training with the weights that the remedy makes of the estimate
    remedy-<estimator>.parquet    its test events, judged
"""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from model.mixed_ranker import CROSS, SINGLE
from training.baselines.next_item import NextItemObjective
from training.cases import Cases, contexts
from training.checkpoint import read_checkpoint
from training.dataset import Dataset
from training.estimators.co_occurrence import similarities
from training.estimators.gradients import MeasuredTransfer, from_others
from training.estimators.left_out import missed
from training.estimators.remedy import correction_weights, weighted
from training.estimators.visible_history import contributions
from training.loop import Training
from training.memory import bounded_memory
from training.ranking import Scorer
from training.run import LAST, open_trained
from training.studies.judged import judged, kept, seen_nll
from training.studies.known_truth import Effort, Piece, joint_config
from training.studies.known_worlds import world_dataset
from training.studies.pieces import AnyTraining, train_piece
from training.task import catalogue_of, drawn_cases

TRAINING_GAP, HELD_OUT_GAP, LEFT_OUT = "gap of training losses", "held-out gap", "leave one domain out"
GIVEN, RECEIVED = "Shapley, given", "Shapley, received"
COSINE, AFFINITY = "gradient cosine", "look-ahead affinity"
SIMILARITY, SPARSITY, RANDOM = "co-occurrence", "sparsity 1/n", "random"
# Of the validation's events per domain: every one is predicted from 2^(D-1) histories.
SHAPLEY_CASES: Final = 500
_EVERY_STEPS: Final = 10
Floats = NDArray[np.float64]


def estimates(piece: Piece, effort: Effort) -> dict[str, list[float]]:
    """Every estimator's vector over the domains; what needs a training trains it if it is missing.

    All of them see training and validation events only.
    """
    dataset, seed = piece.known.dataset, piece.known.world.seed
    validation = contexts(dataset, "validation")
    with bounded_memory():
        gaps = _gaps(piece, validation)
        left_out = _left_out(piece, effort, validation)
        given, received = _shapley(piece, validation)
    cosine, affinity = _gradients(piece, effort)
    similar = similarities(dataset, seed)
    events = np.bincount(dataset.train.domain, minlength=1 + len(dataset.domains))[1:]
    return {
        **gaps,
        LEFT_OUT: left_out,
        GIVEN: given,
        RECEIVED: received,
        COSINE: cosine,
        AFFINITY: affinity,
        SIMILARITY: (similar.sum(0) / (len(similar) - 1)).tolist(),
        SPARSITY: (1 / events).tolist(),
        RANDOM: np.random.default_rng((seed, 1)).standard_normal(len(events)).tolist(),
    }


def remedied(piece: Piece, effort: Effort, name: str, estimate: list[float]) -> pl.DataFrame:
    """The test's events, judged after joint training with the weights of an estimate; `joint` is its scorer."""
    path = piece.folder / f"remedy-{_file_name(name)}.run"
    weights = correction_weights(estimate)

    def weigh(training: AnyTraining) -> None:
        objective = _objective(training)
        objective.target_losses = weighted(objective.target_losses, weights)

    def judge() -> pl.DataFrame:
        scorer = _joint_scorer(path)
        with bounded_memory():
            return judged(piece.known, contexts(piece.known.dataset, "test"), {"joint": scorer}, {})

    train_piece(path, joint_config(effort, piece.known.world.seed), piece.known.dataset, weigh)
    return kept(path.with_suffix(".parquet"), judge)


def _gaps(piece: Piece, validation: Cases) -> dict[str, list[float]]:
    assert piece.syncrec is not None
    towers = piece.syncrec.objective.scorers(catalogue_of(piece.known.dataset))
    single, cross = (
        _means(seen_nll(towers[name], validation, _first_items(piece.known.dataset)), validation)
        for name in (SINGLE, CROSS)
    )
    return {TRAINING_GAP: piece.syncrec.objective.per_domain()["lambda"], HELD_OUT_GAP: (single - cross).tolist()}


def _left_out(piece: Piece, effort: Effort, validation: Cases) -> list[float]:
    dataset, world = piece.known.dataset, piece.known.world
    with_all = _means(seen_nll(_joint_scorer(piece.joint.run.path), validation, _first_items(dataset)), validation)
    without = np.tile(with_all, (len(with_all), 1))
    for number, name in enumerate(dataset.domains):
        folder = piece.folder / f"without-{name}"
        others = world_dataset(world, folder / "dataset", without=name)
        train_piece(folder / "joint.run", joint_config(effort, world.seed), others)
        cases = contexts(others, "validation")
        costs = seen_nll(_joint_scorer(folder / "joint.run"), cases, _first_items(others))
        without[number, np.arange(len(with_all)) != number] = _means(costs, cases)
    return missed(with_all, without)


def _shapley(piece: Piece, validation: Cases) -> tuple[list[float], list[float]]:
    dataset = piece.known.dataset
    scorer = _joint_scorer(piece.joint.run.path)
    cases = validation.take(drawn_cases(validation, SHAPLEY_CASES, seed=0))
    worth = contributions(
        lambda some: seen_nll(scorer, some, _first_items(dataset)), cases, domains=len(dataset.domains)
    )
    return from_others(worth.T), from_others(worth)


def _gradients(piece: Piece, effort: Effort) -> tuple[list[float], list[float]]:
    dataset, path = piece.known.dataset, piece.folder / "watched.run"

    def watch(training: AnyTraining) -> None:
        plain = _objective(training)
        assert isinstance(training, Training)
        training.objective = MeasuredTransfer(plain, len(dataset.domains), _EVERY_STEPS)

    train_piece(path, joint_config(effort, piece.known.world.seed), dataset, watch)
    tensors, _ = read_checkpoint(path / LAST)
    cosine, affinity = (tensors[name] / tensors["measured"] for name in ("cosines", "affinities"))
    return from_others(cosine), from_others(affinity)


def _objective(training: AnyTraining) -> NextItemObjective:
    assert isinstance(training, Training)
    assert isinstance(training.objective, NextItemObjective)
    return training.objective


def _joint_scorer(path: Path) -> Scorer:
    trained = open_trained(path)
    return trained.objective.scorers(catalogue_of(trained.dataset))[CROSS]


def _first_items(dataset: Dataset) -> NDArray[np.int64]:
    return np.array([dataset.first_item(number) for number in range(1, len(dataset.domains) + 1)])


def _means(costs: Floats, cases: Cases) -> Floats:
    """Mean of each domain, [domains]."""
    domain = cases.target_domain.astype(np.int64) - 1
    return np.bincount(domain, costs) / np.bincount(domain)


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name.lower())
