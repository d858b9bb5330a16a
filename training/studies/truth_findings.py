"""What the worlds of `syncrec study truth` show, and what must hold of it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import spearmanr

from training.studies.known_truth import INDEPENDENT, JOINT, SERVED, TOWERS, Effort, Piece, piece
from training.studies.oracle import ORACLE_GAP, SEEN_GAP, TOWER_GAP, DomainMean, domain_means, harm
from training.truth import World, all_related, all_unrelated, five_domains

FIVE, RELATED, UNRELATED = "five domains", "all related", "all unrelated"
# With long histories a domain's own events say nearly everything already, even if all domains are related.
FEW_EVENTS, SHORT = "all related, few events", (8, 16)
WORLDS: Final[dict[str, Callable[[int, int], World]]] = {
    FIVE: five_domains,
    RELATED: lambda users, seed: all_related(5, users, seed),
    FEW_EVENTS: lambda users, seed: replace(all_related(5, users, seed), events=SHORT),
    UNRELATED: lambda users, seed: all_unrelated(5, users, seed),
}
# A domain is safe where it loses at most this share of the independent model's NDCG@10.
MAY_LOSE: Final = 0.01
# Gaps so many standard errors off 0 have a sign.
SURE: Final = 3.0
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Criterion:
    """Something that must hold.

    value, bound: it holds where the value is at least the bound, or, with `at_most`, not above it.
    """

    name: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def passed(self) -> bool:
        """Whether it holds; never for NaN."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True)
class Gaps:
    """What the trainings of one kind of world say of its domains, one entry each.

    floor, independent, joint: expected NLL of the test's events, nats.
    oracle: what joint training takes off the independent one; `seen`: the same of what happened.
    """

    domains: tuple[str, ...]
    floor: list[DomainMean]
    independent: list[DomainMean]
    joint: list[DomainMean]
    oracle: list[DomainMean]
    seen: list[DomainMean]

    def to_json(self) -> dict[str, Any]:
        """By domain."""
        names = ("floor", "independent", "joint", "oracle", "seen")
        return {
            domain: {name: getattr(self, name)[number].to_json() for name in names}
            for number, domain in enumerate(self.domains)
        }


@dataclass(frozen=True)
class Found:
    """Everything that the tables and the figure show.

    gaps: by kind of world.
    lambdas: as LC-NTG ended with them in the five domains, [seeds, domains].
    towers: held-out gap of the same two towers.
    ndcg: expected NDCG@10 of each scorer in the five domains.
    changes: the same less that of the independent models.
    margins: of what is served, less the least that is safe.
    """

    gaps: dict[str, Gaps]
    lambdas: Floats
    towers: list[DomainMean]
    ndcg: dict[str, list[DomainMean]]
    changes: dict[str, list[DomainMean]]
    margins: list[DomainMean]


def find(work: Path, effort: Effort, seeds: range) -> Found:
    """Train and judge what is missing."""
    pieces: dict[str, list[Piece]] = {name: [] for name in WORLDS}
    for seed in seeds:  # outside, so that a study that was stopped is one of fewer seeds
        for name in WORLDS:
            pieces[name].append(world_piece(work, name, effort, seed))
    tables = {name: [one.judged() for one in of_world] for name, of_world in pieces.items()}
    five = tables[FIVE]
    ndcg = {name: pl.col(f"{name}_ndcg") for name in (INDEPENDENT, JOINT, SERVED, TOWERS)}
    independent = ndcg[INDEPENDENT]
    return Found(
        gaps={name: _gaps(pieces[name], tables[name]) for name in WORLDS},
        lambdas=np.array([_lambda(one) for one in pieces[FIVE]]),
        towers=domain_means(five, TOWER_GAP),
        ndcg={name: domain_means(five, value) for name, value in ndcg.items()},
        changes={name: domain_means(five, value - independent) for name, value in ndcg.items() if name != INDEPENDENT},
        margins=domain_means(five, ndcg[SERVED] - (1 - MAY_LOSE) * independent),
    )


def world_piece(work: Path, name: str, effort: Effort, seed: int) -> Piece:
    """Train what is missing in one world."""
    folder = work / name.replace(",", "").replace(" ", "-") / f"seed-{seed}"
    return piece(WORLDS[name](effort.users, seed), folder, effort, with_syncrec=name == FIVE)


def _gaps(pieces: list[Piece], tables: list[pl.DataFrame]) -> Gaps:
    values = (pl.col("floor"), pl.col(f"{INDEPENDENT}_nll"), pl.col(f"{JOINT}_nll"), ORACLE_GAP, SEEN_GAP)
    return Gaps(pieces[0].known.dataset.domains, *(domain_means(tables, value) for value in values))


def _lambda(one: Piece) -> list[float]:
    assert one.syncrec is not None
    return one.syncrec.objective.per_domain()["lambda"]


def criteria(found: Found) -> list[Criterion]:
    """What must hold, and whether it does."""
    five = found.gaps[FIVE]
    served = found.changes[SERVED]
    sparse, noise = five.domains.index("related-sparse"), five.domains.index("noise")
    harms = {name: harm(_values(found.changes[name])) for name in (JOINT, SERVED)}
    return [
        Criterion(
            "Spearman of lambda and oracle gap, mean of the seeds",
            round(float(np.mean(ranked_alike(found.lambdas, five.oracle))), 9),
            0.9,
        ),
        Criterion("|lambda| of noise, largest of the seeds", float(np.abs(found.lambdas[:, noise]).max()), 0.05, True),
        Criterion("domains where lambda has the wrong sign", wrong_signs(found.lambdas, five.oracle), 0, True),
        *(
            Criterion(f"{name}: domains harmed by joint training", _beyond(found.gaps[name], -1), 0, True)
            for name in (RELATED, FEW_EVENTS)
        ),
        Criterion("all unrelated: domains helped by joint training", _beyond(found.gaps[UNRELATED], 1), 0, True),
        Criterion(
            f"served: domains not shown to lose at most {MAY_LOSE:.0%} NDCG@10",
            sum(not one.at_least >= 0 for one in found.margins),
            0,
            True,
        ),
        Criterion("served: share of joint training's harm that is gone", 1 - harms[SERVED] / harms[JOINT], 0.9),
        Criterion("served: least gain of the related sparse domain, NDCG@10", served[sparse].low, 0.0),
    ]


def ranked_alike(estimates: Floats, oracle: list[DomainMean]) -> list[float]:
    """Spearman of an estimate and the oracle gap over the domains, of each seed.

    Args:
        estimates: [seeds, domains].
        oracle: of each domain.
    """
    gaps = np.stack([one.by_seed for one in oracle], axis=1)
    # Rounded, since 0.9 comes out a little below itself.
    return [round(float(spearmanr(*pair).statistic), 9) for pair in zip(estimates, gaps, strict=True)]


def wrong_signs(estimates: Floats, oracle: list[DomainMean]) -> int:
    """Domains whose oracle gap surely has a sign, and the mean of the estimate over the seeds another one.

    Args:
        estimates: [seeds, domains].
        oracle: of each domain.
    """
    sure = [
        one.estimate.interval is not None and abs(one.value) > SURE * one.estimate.interval.standard_error
        for one in oracle
    ]
    other = np.sign(estimates.mean(axis=0)) != np.sign([one.value for one in oracle])
    return int(np.count_nonzero(np.array(sure) & other))


def _beyond(gaps: Gaps, side: int) -> int:
    """Domains whose whole interval is on one side of 0: -1 below, 1 above."""
    ends = [one.high if side < 0 else -one.low for one in gaps.oracle]
    return sum(end < 0 for end in ends)


def _values(means: list[DomainMean]) -> Floats:
    return np.array([one.value for one in means])
