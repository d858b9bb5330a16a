"""Studies of runs and datasets: each prints its tables, writes JSON on request, and exits 1 where something is not as it must be.

Example:
  syncrec study audit grocery.run
  syncrec study audit --help
"""

import argparse
import importlib
from pathlib import Path

from formats.errors import WorkFailed
from syncrec.console import table, write_json
from training.studies.outcome import Outcome

# Study -> (module with add_arguments(parser) and run(arguments) -> Outcome, its line in --help); imported when it is called.
STUDIES = {
    "truth": ("training.studies.truth", "worlds of known truth -> does LC-NTG find harm, and is what is served safe?"),
    "estimators": (
        "training.studies.estimators",
        "worlds of known truth -> which estimate of negative transfer is right?",
    ),
    "rectools": ("training.studies.rectools", "dataset -> our SASRec-SS against RecTools' on the same data"),
    "published": (
        "training.studies.published",
        "events -> our default under another paper's protocol, beside its numbers",
    ),
    "peers": ("training.studies.peers", "datasets -> our default against every tuned baseline, with intervals"),
    "ablation": (
        "training.studies.ablation",
        "datasets -> what each part is worth, and each step from paper to default",
    ),
    "experts": ("training.studies.experts", "datasets -> how many experts, and how many for SDSR; quality and cost"),
    "gaps": ("training.studies.gaps", "runs -> does the gap of training say what holds for unseen events?"),
    "domains": ("training.studies.domains", "cost and ranking of gaps with 5 to 100 domains"),
    "alignment": ("training.studies.alignment", "two runs -> what SC-MIM does to the representations"),
    "dissimilar": ("training.studies.dissimilar", "dataset -> what a domain without relation does to the others"),
    "audit": ("training.studies.audit", "run -> does its quality come from where it should? leaks, order of ids, ties"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which study there is; each declares its own arguments once it is chosen."""
    lines = "\n".join(f"  {name:<12}{line}" for name, (_, line) in STUDIES.items())
    parser.description = f"{parser.description}\n{lines}"
    parser.add_argument("study", choices=STUDIES, metavar="STUDY")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="of the study")
    parser.set_defaults(parser=type(parser))


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen study."""
    study = importlib.import_module(STUDIES[arguments.study][0])
    parser = arguments.parser(
        prog=f"syncrec study {arguments.study}",
        description=study.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    study.add_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")
    own = parser.parse_args(arguments.arguments)
    return _show(arguments.study, study.run(own), own.json)


def _show(name: str, outcome: Outcome, file: Path | None) -> int:
    if str(file) != "-":
        print("\n\n".join(f"{one.title}\n\n{table(one.header, one.rows, one.left)}" for one in outcome.tables))
    if file is not None:
        write_json(file, {"study": name, **outcome.content, "failed": list(outcome.failed)})
    if outcome.failed:
        raise WorkFailed(f"{name}: failed: {', '.join(outcome.failed)}")
    return 0
