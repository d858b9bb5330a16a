"""HR, NDCG and MRR at 5, 10 and 20 per domain, and what crossing domains does to each of them.

Example:
  syncrec evaluate grocery.run
  syncrec evaluate grocery.run --split validation --json -

CDSR is the cross-domain task, which is served; SDSR the single-domain task of the same network. Every target is ranked among
all items of its domain; equal scores share their mean rank; targets without a training event count as misses.
"""

import argparse
from pathlib import Path
from typing import Any

from formats.errors import WrongUse
from syncrec.console import table, write_json
from training.evaluate import CUT_OFFS, METRICS, Protocol, drops_repeats, evaluate
from training.run import EVALUATION, open_trained


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
    parser.add_argument("--max-cases", type=int, metavar="N", help="at most N events per domain, drawn once")
    parser.add_argument(
        "--sampled", type=int, metavar="N", help="rank among N drawn candidates; not comparable with full"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print."""
    for option, value in (("--max-cases", arguments.max_cases), ("--sampled", arguments.sampled)):
        if value is not None and value < 1:
            raise WrongUse(f"{option}: must be at least 1, got {value}")
    trained = open_trained(arguments.run, arguments.dataset)
    exclude = drops_repeats(trained.dataset) if arguments.seen is None else arguments.seen == "exclude"
    protocol = Protocol(arguments.split, exclude, arguments.max_cases, arguments.sampled)
    result = evaluate(trained, protocol)
    if protocol == Protocol("test", drops_repeats(trained.dataset)):
        write_json(arguments.run / EVALUATION, result)  # what `syncrec export` puts into the bundle
    if str(arguments.json) != "-":
        print(report(result))
    if arguments.json is not None:
        write_json(arguments.json, result)
    return 0


def report(result: dict[str, Any]) -> str:
    """The tables that a person reads."""
    groups = [*result["domains"].items(), ("all events", result["overall"]), ("mean of domains", result["macro"])]
    metrics = [f"{name}@{k}" for name in METRICS for k in CUT_OFFS]
    names = {"cross": "CDSR", "single": "SDSR", "popularity": "popularity"}
    quality = [
        [
            group,
            names[task],
            f"{counts['n']:,}" if "n" in counts else "",
            *(f"{counts[task][key]:.4f}" for key in metrics),
        ]
        for group, counts in groups
        for task in names
        if counts.get(task) is not None
    ]
    header = ["domain", "model", "n", *(key.upper() for key in metrics)]
    parts = [
        f"{result['part']} events, ranking {result['ranking']}, seen items {result['seen_items']}",
        table(header, quality, left=(0, 1)),
    ]
    if all("lambda" in counts for counts in result["domains"].values()):  # a baseline has no two tasks to compare
        parts += [
            "negative transfer: NDCG@10 of both tasks, and the gap in training (λ below 0: CDSR fits worse)",
            _transfer(result["domains"]),
        ]
    return "\n\n".join(parts)


def _transfer(domains: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{counts['cold'] / counts['n']:.1%}",
            f"{counts['single']['ndcg@10']:.4f}",
            f"{counts['cross']['ndcg@10']:.4f}",
            f"{counts['cross']['ndcg@10'] - counts['single']['ndcg@10']:+.4f}",
            f"{counts['lambda']:+.4f}",
            f"{counts['weight']:.3f}",
        ]
        for name, counts in domains.items()
        if counts["n"]
    ]
    return table(["domain", "cold", "SDSR", "CDSR", "difference", "λ", "weight"], rows)
