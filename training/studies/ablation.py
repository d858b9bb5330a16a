"""What each part of the method is worth, and each step from the paper's method to our default: one change a row.

Example:
  syncrec study ablation amazon4.dataset --whole amazon4-whole.dataset --work ablation-amazon4 --jobs 2
  syncrec study ablation amazon4.dataset --whole amazon4-whole.dataset --work quick --seeds 1 --minutes 1

Every row is trained like the one that it is compared with, but for one setting (with --trials above 1 each takes its own best dropout
and layers, too); the datasets are those of `syncrec study peers`.
The paper's method has 64 dimensions here: its 512 cost 64 times as much. What is finished is not done again. Writes
DIR/results.json and DIR/ablation.png.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, SINGLE, Weights
from training.case_results import CaseResults, case_results
from training.cases import contexts
from training.compare import compare
from training.members import RECENT, fit_members
from training.memory import bounded_memory
from training.methods import syncrec_config
from training.metrics import Ranks, ndcg_at_k
from training.mixture import MixtureScorer
from training.ranking import Catalogue, Scorer, rank_cases
from training.run import TrainedRun, open_trained
from training.served import weights_on_validation
from training.studies.courses import add_course_arguments, course_of, say
from training.studies.drawing import Point, colour, drawn, intervals, title
from training.studies.outcome import Outcome, StudyTable
from training.studies.peers import ONE_NEGATIVE
from training.studies.race import Course, Entrant, chosen, race, seed_runs, trial_run, write_results
from training.task import catalogue_of, drawn_cases

FIGURE: Final = "ablation.png"
# The sizes of everybody else here; see above.
SIZE: Final = ("dim=64", "heads=1", "batch_windows=128")


@dataclass(frozen=True)
class Row:
    """A row of the table.

    name: what is changed.
    entrant: what is trained; rows that serve one network in several ways share it.
    against: name of the row that it differs from in this.
    members: of the mixture that is served; none: CDSR alone.
    """

    name: str
    entrant: Entrant
    against: str | None
    members: tuple[str, ...] = ()


def _entrant(name: str, *changes: str) -> Entrant:
    return Entrant(name, "paper", [(*SIZE, *network, *changes) for network in ONE_NEGATIVE])


PAPER: Final = _entrant("paper")
PARTS: Final = (
    Row("paper", PAPER, None),
    Row("without LC-NTG", _entrant("without-lc-ntg", "weight_floor=1"), "paper"),
    Row("without SC-MIM", _entrant("without-sc-mim", "mutual_information=0"), "paper"),
    Row("without ACMoE", _entrant("without-acmoe", "stop_gradient=false"), "paper"),
)
# From the paper's method to our default, each kept from its row on.
CHANGES: Final = (
    ("softmax over 512 items", "candidates=512"),
    ("whole histories", "every_window=true"),
    ("no attention dropout", "attention_dropout=0"),
    ("two heads", "heads=2"),
    ("3 experts, not 5", "experts=3"),
    ("SC-MIM at 0.1", "mutual_information=0.1"),
    ("weight floor 0.05", "weight_floor=0.05"),
)
TOWERS: Final = (CROSS, SINGLE)
MIXTURES: Final = (
    ("mixture with SDSR", TOWERS),
    ("+ recent popularity", (*TOWERS, *RECENT)),
    ("+ item kNN = default", (*TOWERS, *RECENT, NEIGHBOURS, OWN_NEIGHBOURS)),
)


def path() -> list[Row]:
    """The rows from the paper's method on."""
    rows, settings = [], []
    before = "paper"
    for number, (name, setting) in enumerate(CHANGES, start=1):
        settings.append(setting)
        rows.append(Row(name, _entrant(f"path-{number}", *settings), before))
        before = name
    for name, members in MIXTURES:
        rows.append(Row(name, rows[-1].entrant, before, members))
        before = name
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_course_arguments(parser)


def run(arguments: argparse.Namespace) -> Outcome:
    """Train what is missing, and compare."""
    course = course_of(arguments)
    rows = [*PARTS, *path()]
    race(list({row.entrant.name: row.entrant for row in rows}.values()), course, arguments.jobs, say)
    content = compared(rows, {row.name: results_of(row, course) for row in rows})
    for row in rows:
        content["rows"][row.name]["chosen"] = chosen(row.entrant, course)
    content["max_cases"] = course.max_cases
    write_results(course, content)
    _draw(course.work / FIGURE, content["rows"])
    return Outcome([_table(content["rows"])], content)


def compared(rows: Sequence[Row], results: Mapping[str, Sequence[CaseResults]]) -> dict[str, Any]:
    """Each row's NDCG@10, and by how much it differs from the row that it is against; the first one has no such row."""
    found = {}
    for row in rows:
        against = row.against or row.name
        found[row.name] = {
            "against": row.against,
            "members": list(row.members),
            "seeds": len(results[row.name]),
            **compare(results[against], results[row.name], _metric).to_json(),
        }
    return {"metric": "ndcg@10", "rows": found}


def results_of(row: Row, course: Course) -> list[CaseResults]:
    """On the test events, of each seed."""
    runs = seed_runs(row.entrant, course)
    if not row.members:
        return [case_results(one, "test", CROSS) for one in runs]
    best = chosen(row.entrant, course)
    assert best is not None
    weights = _weights(trial_run(row.entrant, course, best["trial"]), row.members)
    return [_mixed(one, weights) for one in runs]


def _weights(trial: Path, members: Sequence[str]) -> list[Weights]:
    """The mixture of these members alone, chosen as that of all of them is."""
    trained = open_trained(trial)
    scorers = _members(trained, catalogue_of(trained.dataset))
    return weights_on_validation(trained.dataset, {name: scorers[name] for name in members})


def _mixed(run: Path, weights: Sequence[Weights]) -> CaseResults:
    """What a run would answer to the cases of its evaluation with other weights."""
    alone, trained = case_results(run, "test", CROSS), open_trained(run)
    dataset = trained.dataset
    catalogue, cases = catalogue_of(dataset), contexts(dataset, "test")
    cases = cases.take(drawn_cases(cases, alone.protocol.max_cases, seed=0))
    with bounded_memory():
        scorer = MixtureScorer(_members(trained, catalogue), weights)
        ranks = rank_cases(cases, scorer, catalogue, alone.protocol.exclude_seen)
    return replace(alone, name=f"{run.name}:{'+'.join(weights[0])}", ranks=ranks)


def _members(trained: TrainedRun, catalogue: Catalogue) -> dict[str, Scorer]:
    members = fit_members(trained.dataset, syncrec_config(trained.run.config).max_history)
    return members.scorers(trained.objective.scorers(catalogue))


def _metric(ranks: Ranks) -> Ranks:
    return ndcg_at_k(ranks, 10)


def _table(rows: Mapping[str, dict[str, Any]]) -> StudyTable:
    domains = list(next(iter(rows.values()))["domains"])
    lines = []
    for name, found in rows.items():
        macro, change = found["macro"], ["–"] * 4
        if found["against"]:
            ends = macro["interval"] or {"low": float("nan"), "high": float("nan")}
            share = macro["difference"] / macro["baseline"] if macro["baseline"] else float("nan")
            change = [f"{macro['difference']:+.4f}", f"{share:+.1%}", f"{ends['low']:+.4f}", f"{ends['high']:+.4f}"]
        spread = macro["other_spread"]
        mean = f"{macro['other']:.4f}" + ("" if spread is None else f" ±{spread:.4f}")
        each = [f"{found['domains'][domain]['other']:.4f}" if found["domains"][domain] else "–" for domain in domains]
        lines.append([name, found["against"] or "", mean, *change, *each])
    header = ["row", "against", "NDCG@10", "difference", "%", "from", "to", *domains]
    text = "NDCG@10, mean of the domains (± between seeds), difference to another row with 95 % interval over users, each domain"
    return StudyTable(text, header, lines, left=(0, 1))


def _draw(file: Path, rows: Mapping[str, dict[str, Any]]) -> None:
    changes = {name: found["macro"] for name, found in rows.items() if found["against"]}
    with drawn(file, 1, 2, (11, 0.42 * len(rows) + 1.4)) as (_, panels):
        quality, difference = panels[0]
        values = [found["macro"]["other"] for found in rows.values()]
        spreads = [found["macro"]["other_spread"] or 0.0 for found in rows.values()]
        shades = [colour(4) if found["members"] else colour(5) for found in rows.values()]
        quality.barh(range(len(rows)), values, 0.7, xerr=spreads, color=shades, capsize=2)
        quality.set_yticks(range(len(rows)), list(rows))
        quality.invert_yaxis()
        title(quality, "quality of each row", "NDCG@10, mean of the domains (± standard deviation between seeds)")
        names = [f"{name}\n(against {rows[name]['against']})" for name in changes]
        intervals(difference, names, {"": [_point(macro) for macro in changes.values()]})
        difference.tick_params(axis="y", labelsize=7)
        title(difference, "what the change brings", "difference of NDCG@10 with 95 % interval over users")


def _point(macro: dict[str, Any]) -> Point:
    value, interval = macro["difference"], macro["interval"]
    return Point(value, interval["low"], interval["high"]) if interval else Point(value, value, value)
