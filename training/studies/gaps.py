"""Does the gap that training goes by say what crossing domains costs on events that training has not seen?

Example:
  syncrec study gaps grocery.run grocery-per-domain.run --json gaps.json

RUN is SyNCRec's, with the softmax; SINGLES a run of sasrec-ss-per-domain on the same dataset. The gap of training (lambda) compares
both towers on training events. It is held against two gaps on test events, in nats: that of the same towers, and that between
models which never saw another domain and CDSR, which is what a user gains or loses. Writes RUN/gaps.png.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes

from formats.errors import WrongUse
from model.mixed_ranker import CROSS, SINGLE
from training.baselines.config import PerDomainConfig
from training.bootstrap import Estimate
from training.config import TrainingConfig
from training.memory import bounded_memory
from training.run import LOG, TrainedRun, open_trained
from training.studies.drawing import Point, colour, drawn, intervals, legend, style, title
from training.studies.held_out import gap_per_domain, known_cases, rank_correlation
from training.studies.judged import seen_nll, single_scorer
from training.studies.outcome import Outcome, StudyTable
from training.task import catalogue_of

FIGURE: Final = "gaps.png"
# What the log says of each domain -> panel title, and where a reader wants a line.
SERIES: Final = {
    "phi": ("gap φ on training events, mean of an epoch", "nats", 0.0),
    "lambda": ("running gap λ at the end of an epoch", "nats", 0.0),
    "weight": ("weight of CDSR's loss at the end of an epoch", "mean 1", 1.0),
}
_ESTIMATES: Final = {"towers": "held out, SDSR − CDSR", "singles": "held out, single models − CDSR"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="of SyNCRec, trained with candidates above 0")
    parser.add_argument("singles", type=Path, metavar="SINGLES", help="run of sasrec-ss-per-domain on the same dataset")
    parser.add_argument(
        "--max-cases", type=int, default=3000, metavar="N", help="test events per domain at most (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> Outcome:
    """Measure, and draw."""
    trained, singles = open_trained(arguments.run), open_trained(arguments.singles)
    _refuse_others(trained, singles)
    gaps = held_out_gaps(trained, singles, arguments.max_cases)
    state, domains = trained.objective.per_domain(), trained.dataset.domains
    content = {
        "max_cases": arguments.max_cases,
        "epochs": read_epochs(arguments.run / LOG, domains),
        "domains": {
            name: {
                "lambda": state["lambda"][number],
                "weight": state["weight"][number],
                **{key: _to_json(found[number]) for key, found in gaps.items()},
            }
            for number, name in enumerate(domains)
        },
        "spearman": {key: _agreement(state["lambda"], found) for key, found in gaps.items()},
    }
    _draw(arguments.run / FIGURE, content)
    return Outcome(_tables(content), content)


def held_out_gaps(trained: TrainedRun, singles: TrainedRun, max_cases: int) -> dict[str, list[Estimate | None]]:
    """Gaps on test events, nats, [domain] each: of the run's towers, and of models of one domain each against its CDSR."""
    dataset = trained.dataset
    cases, towers = known_cases(dataset, max_cases), trained.objective.scorers(catalogue_of(dataset))
    scorers = {CROSS: towers[CROSS], "towers": towers[SINGLE], "singles": single_scorer(singles)}
    first_items = np.array([dataset.first_item(number) for number in range(1, 1 + len(dataset.domains))])
    with bounded_memory():
        nll = {name: seen_nll(scorer, cases, first_items) for name, scorer in scorers.items()}
    return {key: gap_per_domain(nll[key], nll[CROSS], cases, len(dataset.domains)) for key in ("towers", "singles")}


def read_epochs(log: Path, domains: Sequence[str]) -> list[dict[str, dict[str, float]]]:
    """Of every epoch: the mean of phi over its steps, and lambda and weight after the last one, by domain."""
    epochs: dict[int, list[dict[str, Any]]] = {}
    for text in log.read_text().splitlines():
        line = json.loads(text)
        if line["kind"] == "step":
            epochs.setdefault(line["epoch"], []).append(line)
    return [
        {
            "phi": {name: float(np.mean([step["phi"][name] for step in steps])) for name in domains},
            **{key: steps[-1][key] for key in ("lambda", "weight")},
        }
        for steps in epochs.values()
    ]


def _refuse_others(trained: TrainedRun, singles: TrainedRun) -> None:
    config, theirs = trained.run.config, singles.run.config
    if not isinstance(config, TrainingConfig) or not config.candidates:
        raise WrongUse(
            f"{trained.run.path}: must be a run of SyNCRec with candidates above 0: others give no probabilities"
        )
    if not isinstance(theirs, PerDomainConfig) or theirs.loss != "softmax":
        raise WrongUse(f"{singles.run.path}: must be a run of sasrec-ss-per-domain")
    if singles.run.fingerprint != trained.run.fingerprint:
        raise WrongUse(f"{singles.run.path} is of another dataset than {trained.run.path}")


def _agreement(average: Sequence[float], gaps: Sequence[Estimate | None]) -> float | None:
    """Spearman's correlation of lambda and a held-out gap over the domains that have both."""
    pairs = [(ours, gap.value) for ours, gap in zip(average, gaps, strict=True) if gap is not None]
    return rank_correlation([a for a, _ in pairs], [b for _, b in pairs])


def _to_json(estimate: Estimate | None) -> dict[str, Any] | None:
    return None if estimate is None else asdict(estimate)


def _tables(content: dict[str, Any]) -> list[StudyTable]:
    rows = [
        [name, f"{found['lambda']:+.4f}", f"{found['weight']:.3f}", *(_told(found[key]) for key in _ESTIMATES)]
        for name, found in content["domains"].items()
    ]
    agreement = ", ".join(
        f"{_ESTIMATES[key]}: {'–' if value is None else f'{value:+.2f}'}" for key, value in content["spearman"].items()
    )
    header = ["domain", "λ of training", "weight", *_ESTIMATES.values()]
    return [
        StudyTable(f"Gaps in nats, below 0: CDSR is worse; Spearman's correlation with λ: {agreement}", header, rows)
    ]


def _told(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    interval = found["interval"]
    return f"{found['value']:+.4f}" + (f" ({interval['low']:+.4f} to {interval['high']:+.4f})" if interval else "")


def _draw(file: Path, content: dict[str, Any]) -> None:
    with drawn(file, 2, 2, (11, 7)) as (figure, panels):
        for axes, (key, (text, unit, line)) in zip(panels.flat, SERIES.items(), strict=False):
            _series(axes, [epoch[key] for epoch in content["epochs"]], line)
            title(axes, text, "epoch", unit)
        legend(figure, panels[0, 0])
        domains = content["domains"]
        points: dict[str, list[Point | None]] = {
            "training, λ": [Point(found["lambda"], found["lambda"], found["lambda"]) for found in domains.values()]
        }
        points.update({text: [_point(found[key]) for found in domains.values()] for key, text in _ESTIMATES.items()})
        intervals(panels[1, 1], list(domains), points)
        panels[1, 1].set_ylim(top=-1.2)  # room for the legend
        panels[1, 1].legend(loc="upper center", ncols=3, fontsize=7, frameon=False)
        title(
            panels[1, 1],
            "what training measures and what holds for unseen events",
            "gap (nats); below 0: CDSR is worse",
        )


def _series(axes: Axes, epochs: Sequence[dict[str, float]], line: float) -> None:
    axes.axhline(line, color="#888888", linewidth=1)
    for number, name in enumerate(epochs[0]):
        values = [epoch[name] for epoch in epochs]
        axes.plot(range(1, len(values) + 1), values, style(number), color=colour(number), label=name)


def _point(found: dict[str, Any] | None) -> Point | None:
    if found is None:
        return None
    ends = found["interval"] or {"low": found["value"], "high": found["value"]}
    return Point(found["value"], ends["low"], ends["high"])
