"""What `syncrec study estimators` finds out in the five domains."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import spearmanr

from training.estimators.remedy import correction_weights
from training.studies.estimates import (
    AFFINITY,
    COSINE,
    GIVEN,
    HELD_OUT_GAP,
    LEFT_OUT,
    RANDOM,
    RECEIVED,
    SIMILARITY,
    SPARSITY,
    TRAINING_GAP,
    estimates,
    remedied,
)
from training.studies.known_truth import INDEPENDENT, JOINT, Effort, Piece
from training.studies.oracle import ORACLE_GAP, harm
from training.studies.truth_findings import FIVE, world_piece

# The remedy with the truth in the place of lambda: what the best estimate could bring.
ORACLE: Final = "oracle gap"
COSTS: Final = {
    TRAINING_GAP: "nothing: both losses are there",
    HELD_OUT_GAP: "a pass over the validation events",
    LEFT_OUT: "D trainings",
    GIVEN: "2^D passes over some validation events",
    RECEIVED: "the same passes",
    COSINE: "D gradients at every tenth step",
    AFFINITY: "D gradients and D passes at every tenth step",
    SIMILARITY: "a count, no training",
    SPARSITY: "a count, no training",
    RANDOM: "nothing",
}
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tried:
    """An estimator in every seed.

    estimates, weights: what it says, and what the remedy makes of it, [seeds, domains].
    spearman: of the estimate and the oracle gap over the domains, [seeds].
    changes: expected NDCG@10 after the remedy, less that of the independent models, [seeds, domains].
    """

    name: str
    estimates: Floats
    weights: Floats
    spearman: Floats
    changes: Floats

    @property
    def harm(self) -> Floats:
        """After the remedy, [seeds]."""
        return np.array([harm(changes) for changes in self.changes])


@dataclass(frozen=True)
class Findings:
    """All estimators on the same worlds.

    oracle: gap in nats, [seeds, domains].
    changes: expected NDCG@10 of plain joint training, less that of the independent models, [seeds, domains].
    """

    domains: tuple[str, ...]
    oracle: Floats
    changes: Floats
    tried: list[Tried]

    @property
    def harm(self) -> Floats:
        """Of plain joint training, [seeds]."""
        return np.array([harm(changes) for changes in self.changes])


def find(work: Path, effort: Effort, seeds: range) -> Findings:
    """Train, estimate and judge what is missing."""
    pieces = [world_piece(work, FIVE, effort, seed) for seed in seeds]
    oracle = np.stack([_domain_means(one.judged(), ORACLE_GAP) for one in pieces])
    said = [{ORACLE: gaps.tolist(), **estimates(one, effort)} for one, gaps in zip(pieces, oracle, strict=True)]
    return Findings(
        domains=pieces[0].known.dataset.domains,
        oracle=oracle,
        changes=np.stack([_changes(one, one.judged()) for one in pieces]),
        tried=[_tried(name, pieces, effort, [of_seed[name] for of_seed in said], oracle) for name in said[0]],
    )


def _tried(name: str, pieces: list[Piece], effort: Effort, said: list[list[float]], oracle: Floats) -> Tried:
    tables = [remedied(one, effort, name, estimate) for one, estimate in zip(pieces, said, strict=True)]
    return Tried(
        name,
        estimates=np.array(said),
        weights=np.array([correction_weights(estimate) for estimate in said]),
        spearman=np.array([spearmanr(*pair).statistic for pair in zip(said, oracle, strict=True)]),
        changes=np.stack([_changes(*pair) for pair in zip(pieces, tables, strict=True)]),
    )


def _changes(piece: Piece, table: pl.DataFrame) -> Floats:
    """NDCG@10 of the joint model of a table of judged events, less that of the independent ones, [domains]."""
    both = table.with_columns(piece.judged()[f"{INDEPENDENT}_ndcg"])
    return _domain_means(both, pl.col(f"{JOINT}_ndcg") - pl.col(f"{INDEPENDENT}_ndcg"))


def _domain_means(table: pl.DataFrame, value: pl.Expr) -> Floats:
    return table.group_by("domain").agg(value.mean().alias("value")).sort("domain")["value"].to_numpy()
