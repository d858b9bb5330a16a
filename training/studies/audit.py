"""Is the quality of a run real? Asks what has a known answer if nothing leaks, and fails where the answer is another.

Example:
  syncrec study audit grocery.run

Shuffled histories and targets must cost all that is personal; another future must change no score; the next higher item id must
be no better a guess than the next lower one; another order of ties, equal scores and random scores must bring what they must.
docs/evaluation.md says what a failure means.
"""

import argparse
from dataclasses import asdict
from pathlib import Path

from formats.errors import WrongUse
from training.audit import Verdict, audit
from training.run import open_trained
from training.studies.outcome import Outcome, StudyTable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder made by syncrec train")
    parser.add_argument("--scorer", metavar="NAME", help="audit this one of its scorers (default: what it serves)")
    parser.add_argument(
        "--max-cases", type=int, default=1000, metavar="N", help="test events per domain at most (default: %(default)s)"
    )
    parser.add_argument("--dataset", type=Path, help="where the dataset is now, if it was moved")


def run(arguments: argparse.Namespace) -> Outcome:
    """Audit a run."""
    if arguments.max_cases < 1:
        raise WrongUse(f"--max-cases: must be at least 1, got {arguments.max_cases}")
    verdicts = audit(open_trained(arguments.run, arguments.dataset), arguments.max_cases, arguments.scorer)
    table = StudyTable(
        title=f"audit of {arguments.run}",
        header=["audit", "", "value", "at most", "of"],
        rows=[_row(verdict) for verdict in verdicts],
        left=(0, 1, 4),
    )
    content = {
        "max_cases": arguments.max_cases,
        "scorer": arguments.scorer,
        "audits": [{**asdict(verdict), "passed": verdict.passed} for verdict in verdicts],
    }
    return Outcome([table], content, [verdict.name for verdict in verdicts if not verdict.passed])


def _row(verdict: Verdict) -> list[str]:
    figures = ", ".join(f"{name} {_figure(value)}" for name, value in verdict.figures.items())
    return [
        verdict.name,
        "pass" if verdict.passed else "FAIL",
        _figure(verdict.value),
        _figure(verdict.bound),
        f"{verdict.meaning}; {figures}",
    ]


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
