"""How many experts, and how many of them for SDSR? Quality of both tasks and cost of a training event.

Example:
  syncrec study experts amazon4.dataset --whole amazon4-whole.dataset --work experts-amazon4 --jobs 2
  syncrec study experts amazon4.dataset --whole amazon4-whole.dataset --work quick --experts 2,5 --shares 0.2,0.5 --seeds 1 --minutes 1

Of K experts j learn from SDSR alone, the others from CDSR alone. Every other setting is the default's, without its mixture. The
datasets are those of `syncrec study peers`. What is finished is not done again. Writes DIR/results.json and DIR/experts.png.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.stats import t

from formats.errors import WrongUse
from model.mixed_ranker import CROSS, SINGLE
from training.case_results import CaseResults, case_results
from training.config import default
from training.configured import configured
from training.dataset import open_dataset
from training.metrics import ndcg_at_k
from training.studies.courses import add_course_arguments, course_of, say
from training.studies.drawing import Point, colour, drawn, legend, marker, spans, title
from training.studies.outcome import Outcome, StudyTable
from training.studies.peers import NETWORKS
from training.studies.race import Course, Entrant, race, seed_runs, write_results
from training.studies.stopwatch import relative, seconds_per_event

FIGURE: Final = "experts.png"
TASKS: Final = {CROSS: "CDSR", SINGLE: "SDSR"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_course_arguments(parser)
    parser.add_argument("--experts", default="2,3,5,10", metavar="K,K", help="default: %(default)s")
    parser.add_argument(
        "--shares",
        default="0.1,0.2,0.3,0.5,0.7,0.9",
        metavar="S,S",
        help="j / K; the nearest j counts (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds", type=int, default=10, metavar="N", help="timed steps of each (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Train what is missing, and draw the curves."""
    course = course_of(arguments)
    splits = asked(arguments.experts, arguments.shares)
    race([entrant(*split) for split in splits], course, arguments.jobs, say)
    cost = _cost(course, splits, arguments.rounds)
    points = [
        {
            "experts": experts,
            "single_experts": single,
            **{task: estimate(_macros(course, experts, single, task)) for task in TASKS},
            "relative_cost": dict(zip(("median", "low", "high"), cost[:, number].tolist(), strict=True)),
        }
        for number, (experts, single) in enumerate(splits)
    ]
    content = {"metric": "ndcg@10", "max_cases": course.max_cases, "points": points}
    write_results(course, content)
    _draw(course.work / FIGURE, points)
    return Outcome([_table(points)], content)


def asked(experts: str, shares: str) -> list[tuple[int, int]]:
    """All (K, j) with 1 <= j < K that come nearest to the shares asked for.

    Raises:
        WrongUse: these are no numbers, or no such.
    """
    try:
        counts, parts = [int(word) for word in experts.split(",")], [float(word) for word in shares.split(",")]
    except ValueError as error:
        raise WrongUse(f"--experts {experts} --shares {shares}: must be numbers with commas between") from error
    if min(counts) < 2 or min(parts) <= 0 or max(parts) >= 1:
        raise WrongUse("--experts must be at least 2, --shares between 0 and 1")
    return sorted({(count, min(max(1, round(part * count)), count - 1)) for count in counts for part in parts})


def entrant(experts: int, single: int) -> Entrant:
    """One point of the curves."""
    words = (f"experts={experts}", f"single_experts={single}", "mixture=false")
    return Entrant(f"{single}-of-{experts}", "default", [(*network, *words) for network in NETWORKS])


def estimate(macros: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean over seeds and its 95 % interval by Student's t; without an interval of a single seed."""
    mean, seeds = float(macros.mean()), len(macros)
    if seeds < 2:
        return {"mean": mean, "low": None, "high": None}
    half = float(t.ppf(0.975, seeds - 1) * macros.std(ddof=1) / np.sqrt(seeds))
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _macros(course: Course, experts: int, single: int, task: str) -> NDArray[np.float64]:
    """Mean over the domains of NDCG@10 on the test events, [seeds]."""
    runs = seed_runs(entrant(experts, single), course)
    return np.array([_macro(case_results(run, "test", task)) for run in runs])


def _macro(results: CaseResults) -> float:
    values, domain = ndcg_at_k(results.ranks, 10), results.cases["domain"].to_physical().to_numpy()
    return float(np.mean([values[domain == number].mean() for number in np.unique(domain)]))


def _cost(course: Course, splits: Sequence[tuple[int, int]], rounds: int) -> NDArray[np.float64]:
    """Seconds per training event over those of the first split: median, low and high, [3, splits]."""
    dataset = open_dataset(course.earlier)
    configs = [configured(default(), None, entrant(*split).trials[0]) for split in splits]
    return relative(seconds_per_event([(dataset, config) for config in configs], rounds))


def _table(points: Sequence[dict[str, Any]]) -> StudyTable:
    rows = [
        [
            str(point["experts"]),
            str(point["single_experts"]),
            f"{point['single_experts'] / point['experts']:.2f}",
            *(_told(point[task]) for task in TASKS),
            f"{point['relative_cost']['median']:.2f}",
        ]
        for point in points
    ]
    header = ["K", "j", "j / K", *(f"{name} NDCG@10" for name in TASKS.values()), "cost of an event"]
    return StudyTable(
        "Experts: mean of the domains, 95 % interval over seeds; cost relative to the first row", header, rows, ()
    )


def _told(found: dict[str, float | None]) -> str:
    ends = "" if found["low"] is None else f" ({found['low']:.4f} to {found['high']:.4f})"
    return f"{found['mean']:.4f}{ends}"


def _draw(file: Path, points: Sequence[dict[str, Any]]) -> None:
    share = "share of the experts that SDSR teaches (j / K)"
    with drawn(file, 1, 3, (12, 4)) as (figure, panels):
        for axes, (task, name) in zip(panels[0], TASKS.items(), strict=False):
            _curves(axes, points, [_point(point[task]) for point in points])
            title(axes, f"{name}, mean of the domains", share, "NDCG@10")
        costs = panels[0, 2]
        _curves(costs, points, [Point(*point["relative_cost"].values()) for point in points])
        costs.set_ylim(0)
        title(costs, f"time per training event, {points[0]['experts']} experts = 1", share)
        legend(figure, panels[0, 0])


def _curves(axes: Axes, splits: Sequence[dict[str, Any]], points: Sequence[Point]) -> None:
    """A line for each number of experts, a little beside each other."""
    counts = sorted({split["experts"] for split in splits})
    for number, count in enumerate(counts):
        own = [place for place, split in enumerate(splits) if split["experts"] == count]
        x = [splits[place]["single_experts"] / count + 0.01 * (number - (len(counts) - 1) / 2) for place in own]
        values, ends = spans([points[place] for place in own])
        look: dict[str, Any] = {"fmt": f"{marker(number)}-", "color": colour(number), "capsize": 2, "markersize": 5}
        axes.errorbar(x, values, yerr=ends, label=f"K = {count}", **look)
    axes.set_xlim(0, 1)


def _point(found: dict[str, Any]) -> Point:
    mean = found["mean"]
    return Point(mean, mean if found["low"] is None else found["low"], mean if found["high"] is None else found["high"])
