"""HR, NDCG and MRR at 5, 10 and 20 per domain, what crossing domains does to each of them, and what the lists are like.

Example:
  syncrec evaluate grocery.run
  syncrec evaluate grocery.run --split validation --json -

CDSR is the cross-domain task, SDSR the single-domain task of the same network; what is served stands first. Every target is
ranked among all items of its domain; equal scores share their mean rank; targets without a training event count as misses. The
rank of every case is kept in the run (cases-<split>.parquet), where `syncrec compare` finds it. docs/evaluation.md explains it all.
"""

import argparse
from pathlib import Path

from formats.errors import WrongUse
from syncrec.console import write_json
from syncrec.evaluate_report import report
from training.case_results import write_case_results
from training.evaluate import Protocol, describe, score_part
from training.run import EVALUATION, TrainedRun, open_trained
from training.task import drops_repeats

# Ranking among the items of all domains costs as many times more as there are domains.
CATALOGUE_CASES = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder made by syncrec train")
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--dataset", type=Path, help="where the dataset is now, if it was moved")
    parser.add_argument(
        "--seen",
        choices=["exclude", "keep"],
        help="candidates that the user has had (default: as prepare treated repeats)",
    )
    parser.add_argument(
        "--ranking",
        choices=["domain", "catalogue"],
        default="domain",
        help="among the items of the target's domain (default), or of all domains with the scores as they are",
    )
    parser.add_argument(
        "--max-cases",
        type=int,
        metavar="N",
        help=f"at most N events per domain, drawn once (default: all; with --ranking catalogue: {CATALOGUE_CASES:,})",
    )
    parser.add_argument(
        "--sampled",
        type=int,
        metavar="N",
        help="a further column, as published: ranked among N drawn candidates; not comparable with full ranking",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate, keep the cases and print."""
    for option, value in (("--max-cases", arguments.max_cases), ("--sampled", arguments.sampled)):
        if value is not None and value < 1:
            raise WrongUse(f"{option}: must be at least 1, got {value}")
    trained = open_trained(arguments.run, arguments.dataset)
    protocol = _protocol(arguments, trained)
    evaluation = score_part(trained, protocol)
    write_case_results(arguments.run, evaluation)
    result = describe(trained, evaluation)
    if protocol == Protocol("test", drops_repeats(trained.dataset)):
        write_json(arguments.run / EVALUATION, result)  # what `syncrec export` puts into the bundle
    if str(arguments.json) != "-":
        print(report(result))
    if arguments.json is not None:
        write_json(arguments.json, result)
    return 0


def _protocol(arguments: argparse.Namespace, trained: TrainedRun) -> Protocol:
    return Protocol(
        part=arguments.split,
        exclude_seen=drops_repeats(trained.dataset) if arguments.seen is None else arguments.seen == "exclude",
        max_cases=arguments.max_cases or (CATALOGUE_CASES if arguments.ranking == "catalogue" else None),
        sampled=arguments.sampled,
        among=arguments.ranking,
    )
