"""More domains: what a training event costs, and whether the gaps still say which domain crossing harms.

Example:
  syncrec study domains --work domains
  syncrec study domains --work quick --counts 5,10 --rounds 3 --ranked 5 --ranked-users 400 --epochs 2

Worlds of `syncrec generate --preset many-domains` with equal numbers of events. Costs are those of whole training steps of the
default preset, relative to the fewest domains, taken in turn in one process. For the ranking, SyNCRec and one model per domain are
trained in a world of --ranked domains; the oracle is the expected NLL, over the world's exact probabilities, of the models that
never saw another domain, less that of CDSR. Writes DIR/domains.png.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from matplotlib.axes import Axes

from formats.errors import WrongUse
from model.mixed_ranker import CROSS, SINGLE
from training.cases import contexts
from training.config import default
from training.memory import bounded_memory
from training.run import open_trained
from training.studies.drawing import Point, colour, drawn, marker, spans, title
from training.studies.held_out import rank_correlation
from training.studies.judged import judged, single_scorer
from training.studies.known_truth import CDSR, INDEPENDENT, SDSR, Effort, singles_config, syncrec_config
from training.studies.known_worlds import known_world, world_dataset
from training.studies.oracle import domain_means
from training.studies.outcome import Outcome, StudyTable
from training.studies.pieces import train_piece
from training.studies.stopwatch import relative, seconds_per_event
from training.task import catalogue_of
from training.truth import many_domains

FIGURE: Final = "domains.png"
TIMED_USERS: Final = 4000
MOST_COST: Final = 1.5
LEAST_SPEARMAN: Final = 0.8
# Held-out gaps between two models of a world, expected NLL in nats: the oracle, and what LC-NTG's lambda estimates.
GAPS: Final = {
    "oracle": pl.col(f"{INDEPENDENT}_nll") - pl.col(f"{CDSR}_nll"),
    "towers": pl.col(f"{SDSR}_nll") - pl.col(f"{CDSR}_nll"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the pieces are kept")
    parser.add_argument("--counts", default="5,10,20,50,100", metavar="D,D", help="timed (default: %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=20, metavar="N", help="timed steps of each (default: %(default)s)"
    )
    parser.add_argument(
        "--ranked", type=int, default=50, metavar="D", help="domains of the ranking (default: %(default)s)"
    )
    parser.add_argument("--ranked-users", type=int, default=5000, metavar="N", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="at most, of the ranking's trainings")
    parser.add_argument("--seed", type=int, default=0, help="of worlds and trainings (default: %(default)s)")


def run(arguments: argparse.Namespace) -> Outcome:
    """Time, train what is missing, and rank."""
    counts = _counts(arguments.counts)
    if arguments.rounds < 1 or arguments.ranked < 3:
        raise WrongUse("--rounds is at least 1, --ranked at least 3")
    work, seed = arguments.work, arguments.seed
    cost = time_domains(counts, arguments.rounds, work, seed)
    ranking = rank_domains(arguments.ranked, Effort(arguments.ranked_users, arguments.epochs), work, seed)
    content = {"seed": seed, "rounds": arguments.rounds, "cost": cost, "ranking": ranking}
    _draw(work / FIGURE, content)
    failed = ["cost"] if cost[-1]["relative"]["value"] > MOST_COST else []
    failed += ["ranking"] if (ranking["spearman"]["oracle"] or 0.0) < LEAST_SPEARMAN else []
    return Outcome(_tables(content), content, failed)


def time_domains(counts: Sequence[int], rounds: int, work: Path, seed: int) -> list[dict[str, Any]]:
    """Microseconds per training event, and relative to the first number of domains, for each of them."""
    config = replace(default(), seed=seed)
    worlds = [many_domains(count, TIMED_USERS, seed) for count in counts]
    datasets = [world_dataset(world, work / f"timed-{len(world.domains)}") for world in worlds]
    seconds = seconds_per_event([(dataset, config) for dataset in datasets], rounds)
    return [
        {
            "domains": count,
            "events": dataset.train.events,
            "microseconds": 1e6 * float(np.median(own)),
            "relative": Point(*ratio.tolist())._asdict(),
        }
        for count, dataset, own, ratio in zip(counts, datasets, seconds.T, relative(seconds).T, strict=True)
    ]


def rank_domains(domains: int, effort: Effort, work: Path, seed: int) -> dict[str, Any]:
    """Lambda of training beside the held-out gaps of every domain, and Spearman's correlations with them."""
    folder = work / f"ranked-{domains}"
    known = known_world(many_domains(domains, effort.users, seed), folder)
    config = replace(syncrec_config(effort, seed), mixture=False)
    train_piece(folder / "syncrec.run", config, known.dataset)
    train_piece(folder / "singles.run", singles_config(effort, seed), known.dataset)
    trained, singles = open_trained(folder / "syncrec.run"), open_trained(folder / "singles.run")
    towers = trained.objective.scorers(catalogue_of(known.dataset))
    scorers = {INDEPENDENT: single_scorer(singles), CDSR: towers[CROSS], SDSR: towers[SINGLE]}
    with bounded_memory():
        table = judged(known, contexts(known.dataset, "test"), scorers, {})
    gaps = {name: domain_means([table], gap) for name, gap in GAPS.items()}
    average = trained.objective.per_domain()["lambda"]
    kinds = {domain.name: domain.name.rsplit("-", 1)[0] for domain in known.world.domains}
    return {
        "domains": {
            name: {
                "kind": kinds[name],
                "lambda": average[number],
                **{
                    key: {"value": of[number].value, "low": of[number].low, "high": of[number].high}
                    for key, of in gaps.items()
                },
            }
            for number, name in enumerate(known.dataset.domains)
        },
        "spearman": {key: rank_correlation(average, [mean.value for mean in of]) for key, of in gaps.items()},
        "users": effort.users,
        "epochs": {"syncrec": trained.notes["epoch"], "singles": singles.notes["epoch"]},
    }


def _counts(words: str) -> list[int]:
    try:
        counts = [int(word) for word in words.split(",")]
    except ValueError as error:
        raise WrongUse(f"--counts {words}: must be numbers with commas between") from error
    if min(counts) < 1:
        raise WrongUse(f"--counts {words}: must be at least 1")
    return sorted(counts)


def _tables(content: dict[str, Any]) -> list[StudyTable]:
    costs = [
        [
            str(found["domains"]),
            f"{found['microseconds']:.0f}",
            *(f"{found['relative'][key]:.2f}" for key in ("value", "low", "high")),
        ]
        for found in content["cost"]
    ]
    domains, spearman = content["ranking"]["domains"], content["ranking"]["spearman"]
    kinds = sorted({found["kind"] for found in domains.values()})
    means = []
    for kind in kinds:
        own = [found for found in domains.values() if found["kind"] == kind]
        values = (
            np.mean([found["lambda"] for found in own]),
            *(np.mean([f[key]["value"] for f in own]) for key in GAPS),
        )
        means.append([kind, str(len(own)), *(f"{value:+.3f}" for value in values)])
    told = ", ".join(f"{key} {'–' if value is None else f'{value:+.2f}'}" for key, value in spearman.items())
    return [
        StudyTable(
            f"Time per training event (at most {MOST_COST} times that of {content['cost'][0]['domains']} domains)",
            ["domains", "µs", "relative", "from", "to"],
            costs,
            left=(),
        ),
        StudyTable(
            f"Gaps in nats, mean of each kind of domain; Spearman's correlation of λ over {len(domains)} domains with: {told}",
            ["kind", "domains", "λ of training", "oracle", "towers, held out"],
            means,
        ),
    ]


def _draw(file: Path, content: dict[str, Any]) -> None:
    with drawn(file, 1, 2, (11, 4.2)) as (_, panels):
        costs, ranking = panels[0]
        values, ends = spans([Point(**found["relative"]) for found in content["cost"]])
        counts = [found["domains"] for found in content["cost"]]
        costs.errorbar(counts, values, yerr=ends, fmt="o-", color=colour(0), capsize=2)
        costs.axhline(MOST_COST, color="#888888", linestyle="--", linewidth=1)
        costs.annotate(
            f"at most {MOST_COST}", (counts[0], MOST_COST), textcoords="offset points", xytext=(0, 3), fontsize=8
        )
        costs.set_xscale("log")
        costs.set_xticks(counts, [str(count) for count in counts])
        costs.minorticks_off()
        costs.set_ylim(0, 1.1 * max(MOST_COST, *values))
        title(costs, "cost of a training event", "domains", f"time relative to {counts[0]} domains")
        _ranking(ranking, content["ranking"])


def _ranking(axes: Axes, ranking: dict[str, Any]) -> None:
    domains = ranking["domains"].values()
    axes.axhline(0, color="#888888", linewidth=1)
    axes.axvline(0, color="#888888", linewidth=1)
    for number, kind in enumerate(sorted({found["kind"] for found in domains})):
        own = [found for found in domains if found["kind"] == kind]
        values, ends = spans([Point(**found["oracle"]) for found in own])
        axes.errorbar(
            values,
            [found["lambda"] for found in own],
            xerr=ends,
            fmt=marker(number),
            color=colour(number),
            markersize=5,
            elinewidth=0.7,
            label=kind,
        )
    axes.legend(frameon=False, fontsize=8)
    spearman = ranking["spearman"]["oracle"]
    text = "–" if spearman is None else f"{spearman:+.2f}"
    title(
        axes,
        f"{len(domains)} domains: Spearman's correlation {text}",
        "oracle gap (nats); below 0: crossing harms",
        "λ of training (nats)",
    )
