"""Does LC-NTG find where other domains help and hurt, and is what is served safe? Asked of worlds whose truth is known.

Example:
  syncrec study truth --work truth
  syncrec study truth --work quick-truth --quick

In each world the same network is trained for every domain alone and for all domains jointly. What joint training takes off a domain's
NLL is the oracle gap; lambda has to rank domains as it does, without the separate trainings. Worlds with all domains related and all
unrelated are controls. docs/studies/truth.md says what is asked and what came out. What is finished in the work folder is not done
again: the same command goes on. Tables of every event and the figure truth.png are kept there.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from formats.errors import WrongUse
from training.studies.known_truth import FULL, INDEPENDENT, JOINT, QUICK, SERVED, TOWERS, Effort, network_settings
from training.studies.oracle import DomainMean
from training.studies.outcome import Outcome, StudyTable
from training.studies.truth_findings import FIVE, Criterion, Found, Gaps, criteria, find, ranked_alike, wrong_signs

SEEDS: Final = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the pieces are kept")
    parser.add_argument(
        "--seeds", type=int, metavar="N", help=f"of worlds and trainings (default: {SEEDS}; --quick: 1)"
    )
    parser.add_argument(
        "--users", type=int, metavar="N", help=f"of a world (default: {FULL.users}; --quick: {QUICK.users})"
    )
    parser.add_argument("--quick", action="store_true", help="minutes instead of hours; too little to judge by")


def run(arguments: argparse.Namespace) -> Outcome:
    """Train what is missing, and say what it shows."""
    effort, seeds = asked(arguments)
    found = find(arguments.work, effort, seeds)
    judgements = criteria(found)
    from training.studies.truth_figure import draw_truth  # noqa: PLC0415 (matplotlib takes a second to load)

    draw_truth(found, arguments.work / "truth.png")
    content = {
        "users": effort.users,
        "seeds": list(seeds),
        "network": network_settings(effort, seeds[0]),
        **_content(found),
        "criteria": [{**asdict(one), "passed": one.passed} for one in judgements],
    }
    failed = [] if arguments.quick else [one.name for one in judgements if not one.passed]
    tables = [*_gap_tables(found), _estimates_table(found), _served_table(found), _criteria_table(judgements)]
    return Outcome(tables, content, failed)


def asked(arguments: argparse.Namespace) -> tuple[Effort, range]:
    """How much to train, and on which seeds.

    Raises:
        WrongUse: none at all.
    """
    effort = QUICK if arguments.quick else FULL
    for name in ("seeds", "users"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            raise WrongUse(f"--{name}: must be at least 1, got {getattr(arguments, name)}")
    count = arguments.seeds or (1 if arguments.quick else SEEDS)
    return replace(effort, users=arguments.users or effort.users), range(1, count + 1)


def _content(found: Found) -> dict[str, Any]:
    five = found.gaps[FIVE]
    return {
        "worlds": {name: gaps.to_json() for name, gaps in found.gaps.items()},
        "lambda": dict(zip(five.domains, found.lambdas.T.tolist(), strict=True)),
        "tower_gap": _by_domain(five, found.towers),
        "spearman": {name: ranked_alike(values, five.oracle) for name, values in _estimates(found).items()},
        "ndcg": {name: _by_domain(five, means) for name, means in found.ndcg.items()},
        "changes": {name: _by_domain(five, means) for name, means in found.changes.items()},
    }


def _estimates(found: Found) -> dict[str, NDArray[np.float64]]:
    """What estimates the oracle gap from one SyNCRec alone, [seeds, domains] each."""
    return {
        "lambda": found.lambdas,
        "held-out gap of the towers": np.stack([one.by_seed for one in found.towers], axis=1),
    }


def _estimates_table(found: Found) -> StudyTable:
    oracle = found.gaps[FIVE].oracle
    rows = []
    for name, values in _estimates(found).items():
        alike = ranked_alike(values, oracle)
        rows.append([name, f"{np.mean(alike):.2f}", f"{min(alike):.2f}", str(wrong_signs(values, oracle))])
    header = ["estimate", "Spearman, mean of the seeds", "least", "domains with the wrong sign"]
    return StudyTable(f"{FIVE}: estimates against the oracle gap", header, rows)


def _by_domain(gaps: Gaps, means: list[DomainMean]) -> dict[str, Any]:
    return {domain: one.to_json() for domain, one in zip(gaps.domains, means, strict=True)}


def _gap_tables(found: Found) -> list[StudyTable]:
    header = ["domain", "floor", "independent", "joint", "oracle gap", "95 % interval", "± seeds"]
    tables = []
    for name, gaps in found.gaps.items():
        columns = [
            gaps.domains,
            *([f"{one.value:.3f}" for one in means] for means in (gaps.floor, gaps.independent, gaps.joint)),
            [f"{one.value:+.3f}" for one in gaps.oracle],
            [f"{one.low:+.3f} to {one.high:+.3f}" for one in gaps.oracle],
            [_spread(one.by_seed) for one in gaps.oracle],
        ]
        further: list[str] = []
        if name == FIVE:
            further = ["held-out gap of the towers", "lambda", "± seeds"]
            columns += [
                [f"{one.value:+.3f}" for one in found.towers],
                [f"{value:+.3f}" for value in found.lambdas.mean(axis=0)],
                [_spread(of_domain) for of_domain in found.lambdas.T],
            ]
        tables.append(
            StudyTable(f"{name}: expected NLL of the test's events (nats)", [*header, *further], _rows(columns))
        )
    return tables


def _served_table(found: Found) -> StudyTable:
    independent = found.ndcg[INDEPENDENT]
    columns = [
        found.gaps[FIVE].domains,
        [f"{one.value:.4f}" for one in independent],
        *(
            [_share(one, of) for one, of in zip(found.changes[name], independent, strict=True)]
            for name in (JOINT, TOWERS)
        ),
        [_share(one, of) for one, of in zip(found.changes[SERVED], independent, strict=True)],
        [
            f"{one.low / of.value:+.1%} to {one.high / of.value:+.1%}"
            for one, of in zip(found.changes[SERVED], independent, strict=True)
        ],
    ]
    return StudyTable(
        f"{FIVE}: expected NDCG@10 of the independent models, and what others are off it",
        ["domain", "independent", "joint", "mixture of the towers", "served mixture", "95 % interval"],
        _rows(columns),
    )


def _criteria_table(judgements: list[Criterion]) -> StudyTable:
    rows = [
        [
            one.name,
            "holds" if one.passed else "FAILS",
            f"{one.value:.3f}",
            f"{'at most' if one.at_most else 'at least'} {one.bound:g}",
        ]
        for one in judgements
    ]
    return StudyTable("what must hold", ["", "", "value", "asked"], rows, left=(0, 1, 3))


def _rows(columns: Sequence[Sequence[str]]) -> list[list[str]]:
    return [list(row) for row in zip(*columns, strict=True)]


def _spread(by_seed: NDArray[np.float64]) -> str:
    return f"{by_seed.std(ddof=1):.3f}" if len(by_seed) > 1 else "–"


def _share(change: DomainMean, of: DomainMean) -> str:
    return f"{change.value / of.value:+.1%}"
