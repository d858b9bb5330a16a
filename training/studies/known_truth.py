"""One world of the known-truth studies: what is trained in it, and every event of its test judged by the truth.

<folder>/
    dataset
    singles.run      SASRec for every domain alone
    joint.run        the same network on the mixed sequences of all domains, every event the same weight
    syncrec.run      SyNCRec with LC-NTG and the default preset's mixture
    judged.parquet   `training.studies.judged` of all of them
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from model.mixed_ranker import CROSS, SINGLE
from training.baselines.config import PerDomainConfig, SASRecConfig
from training.cases import contexts
from training.config import RunConfig, TrainingConfig, default
from training.memory import bounded_memory
from training.mixture import MixtureScorer
from training.ranking import Scorer
from training.run import TrainedRun, open_trained
from training.served import served_mixture, weights_on_validation
from training.studies.judged import judged, kept, single_scorer
from training.studies.known_worlds import KnownWorld, known_world
from training.studies.pieces import train_piece
from training.task import catalogue_of
from training.truth import World

# Scorers of the judged table. Only the first four are logits.
INDEPENDENT, JOINT, CDSR, SDSR = "independent", "joint", "cdsr", "sdsr"
SERVED, TOWERS = "served", "towers"


@dataclass(frozen=True)
class Effort:
    """How much a study trains.

    users: of each world.
    epochs: at most so many of every training.
    """

    users: int
    epochs: int


FULL: Final = Effort(users=5000, epochs=30)
QUICK: Final = Effort(users=800, epochs=3)


def network_settings(effort: Effort, seed: int) -> dict[str, Any]:
    """What all networks of a study have in common: 60 items a domain need no more, and all of them are candidates."""
    return {
        "dim": 32,
        "heads": 2,
        "layers": 1,
        "dropout": 0.1,
        "batch_windows": 128,
        "learning_rate": 0.01,
        "epochs": effort.epochs,
        "patience": 5,
        "seed": seed,
    }


def syncrec_config(effort: Effort, seed: int) -> TrainingConfig:
    """The default preset at this size."""
    return replace(default(), **network_settings(effort, seed), experts=3)


def joint_config(effort: Effort, seed: int) -> SASRecConfig:
    """Plain joint training."""
    return SASRecConfig(**network_settings(effort, seed))


def singles_config(effort: Effort, seed: int) -> PerDomainConfig:
    """The same networks without each other."""
    return PerDomainConfig(**network_settings(effort, seed))


@dataclass(frozen=True)
class Piece:
    """A world and its finished runs; `syncrec` is None where it was not asked for."""

    known: KnownWorld
    folder: Path
    singles: TrainedRun
    joint: TrainedRun
    syncrec: TrainedRun | None

    def judged(self) -> pl.DataFrame:
        """Every test event, judged once and kept; see `training.studies.judged`."""
        return kept(self.folder / "judged.parquet", self._judge)

    def _judge(self) -> pl.DataFrame:
        catalogue = catalogue_of(self.known.dataset)
        logits = {INDEPENDENT: single_scorer(self.singles), JOINT: self.joint.objective.scorers(catalogue)[CROSS]}
        shares: dict[str, Scorer] = {}
        with bounded_memory():
            if self.syncrec is not None:
                towers = self.syncrec.objective.scorers(catalogue)
                logits |= {CDSR: towers[CROSS], SDSR: towers[SINGLE]}
                shares = _mixtures(self.syncrec)
            return judged(self.known, contexts(self.known.dataset, "test"), logits, shares)


def piece(world: World, folder: Path, effort: Effort, with_syncrec: bool) -> Piece:
    """Train what is missing in a world; the seed of the trainings is that of the world."""
    known = known_world(world, folder)
    configs: dict[str, RunConfig] = {
        "singles": singles_config(effort, world.seed),
        "joint": joint_config(effort, world.seed),
    }
    if with_syncrec:
        configs["syncrec"] = syncrec_config(effort, world.seed)
    runs = {}
    for name, config in configs.items():
        path = folder / f"{name}.run"
        train_piece(path, config, known.dataset)
        runs[name] = open_trained(path)
    return Piece(known, folder, runs["singles"], runs["joint"], runs.get("syncrec"))


def _mixtures(syncrec: TrainedRun) -> dict[str, Scorer]:
    """What is served, and a mixture of the two towers alone."""
    catalogue = catalogue_of(syncrec.dataset)
    mixture = served_mixture(syncrec)
    members = mixture.members.scorers(syncrec.objective.scorers(catalogue))
    towers = {name: members[name] for name in (CROSS, SINGLE)}
    return {
        SERVED: MixtureScorer(members, mixture.weights),
        TOWERS: MixtureScorer(towers, weights_on_validation(syncrec.dataset, towers)),
    }
