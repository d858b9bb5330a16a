"""Runs against the first one, on the same cases: difference, interval, p-value, and what the test could see at all.

Example:
  syncrec compare baseline.run new.run
  syncrec compare baseline.run:single new.run --metric hr@10
  syncrec compare sasrec.1.run+sasrec.2.run+sasrec.3.run new.1.run+new.2.run+new.3.run --json comparison.json

A run may name one of its scorers behind a colon (as `syncrec evaluate` lists them; default: the one that is served). Runs of one
method with other seeds are joined by +: a case counts with its mean over them. Runs without kept results are evaluated first.

The interval holds 95 % of 10,000 bootstrap draws over users; it says what other users would change, not what another seed would.
A difference below `visible` is found by such a test less than four times in five, even if it is true.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from formats.errors import WrongUse
from syncrec.console import table, write_json
from training.bootstrap import DRAWS
from training.case_results import CaseResults, Part, case_results
from training.compare import Comparison, Difference, compare
from training.metrics import metric_named


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="RUN, RUN:SCORER, or RUN+RUN+…; the first is the baseline"
    )
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--metric", default="ndcg@10", help="hr, ndcg or mrr with a cut-off (default: %(default)s)")
    parser.add_argument("--dataset", type=Path, help="where the dataset is now, if it was moved")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Compare and print."""
    if len(arguments.runs) < 2:
        raise WrongUse("name at least two runs: the first is the baseline")
    metric = metric_named(arguments.metric)
    baseline, *others = (_results(text, arguments.split, arguments.dataset) for text in arguments.runs)
    found = [(_name(other), compare(baseline, other, metric)) for other in others]
    about = {
        **baseline[0].protocol.describe(),
        "metric": arguments.metric,
        "draws": DRAWS,
        "users": baseline[0].cases["user_id"].n_unique(),
        "baseline": _name(baseline),
    }
    if str(arguments.json) != "-":
        print(report(about, found))
    if arguments.json is not None:
        comparisons = [{"other": name, **comparison.to_json()} for name, comparison in found]
        write_json(arguments.json, {**about, "comparisons": comparisons})
    return 0


def report(about: dict[str, Any], found: Sequence[tuple[str, Comparison]]) -> str:
    """A table for each comparison."""
    first = (
        f"{about['metric'].upper()} of {about['users']:,} users' {about['part']} events, ranking {about['ranking']}, "
        f"seen items {about['seen_items']}; baseline {about['baseline']}"
    )
    return "\n\n".join([first, *(f"{name}\n{_table(comparison)}" for name, comparison in found)])


def _table(comparison: Comparison) -> str:
    groups = [*comparison.domains.items(), ("mean of domains", comparison.macro)]
    rows = [[name, *_cells(difference)] for name, difference in groups if difference is not None]
    header = ["domain", "n", "baseline", "run", "difference", "95 % interval", "p", "p (Holm)", "visible", ""]
    return table(header, rows, left=(0, len(header) - 1))


def _cells(difference: Difference) -> list[str]:
    interval = difference.estimate.interval
    sure = ["", "", "", ""]
    if interval is not None:
        holm = "" if difference.p_holm is None else f"{difference.p_holm:.4f}"
        sure = [f"{interval.low:+.4f} to {interval.high:+.4f}", f"{interval.p:.4f}", holm, f"{interval.visible:.4f}"]
    return [
        f"{difference.n:,}",
        _mean(difference.baseline, difference.baseline_spread),
        _mean(difference.other, difference.other_spread),
        f"{difference.estimate.value:+.4f}",
        *sure,
        difference.verdict,
    ]


def _mean(value: float, spread: float | None) -> str:
    """With the standard deviation between seeds, where there are several."""
    return f"{value:.4f}" if spread is None else f"{value:.4f} ± {spread:.4f}"


def _results(text: str, split: Part, dataset: Path | None) -> list[CaseResults]:
    """Of the runs that an argument names; a folder of that name is that folder, whatever + and : it has in it."""
    paths, _, scorer = (text, "", "") if ":" not in text or Path(text).exists() else text.rpartition(":")
    names = [paths] if Path(paths).exists() else paths.split("+")
    return [case_results(Path(name), split, scorer or None, dataset) for name in names]


def _name(seeds: Sequence[CaseResults]) -> str:
    return " + ".join(results.name for results in seeds)
