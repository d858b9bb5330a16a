"""Our default under the protocol of ABXI (WWW 2025), on the files that its authors publish, beside their numbers.

Example:
  syncrec study published amazon4/events-source-order.csv.gz --work published-source-order
  syncrec study published amazon4/events.csv.gz --order time --work published-ours

The protocol is not ours and flatters everybody: the last event of a user's history of two domains is the test, ranked among 999
items of its own domain that the user has not. ABXI lists events of one day in the order of the file, by ascending item id, which a
model can learn; `--order file` keeps that order, `--order time` breaks such ties by a hash, as everywhere else here.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import polars as pl

from formats.errors import WorkFailed, WrongUse
from formats.events import EventSource
from training.config import default
from training.dataset import Dataset, open_dataset
from training.evaluate import Protocol, evaluate
from training.prepare import PrepareOptions, prepare
from training.run import open_trained
from training.studies.outcome import Outcome, StudyTable
from training.studies.pieces import train_piece

PAIRS: Final = (("Food", "Kitchen"), ("Beauty", "Electronics"))
CANDIDATES: Final = 999
METRICS: Final = ("hr@5", "hr@10", "ndcg@10")
# Means of five seeds, from the README of the authors' repository, DiMarzioBian/ABXI.
ABXI: Final = {
    "Food": (0.2519, 0.3243, 0.1971),
    "Kitchen": (0.1745, 0.2438, 0.1427),
    "Beauty": (0.2754, 0.3778, 0.2200),
    "Electronics": (0.1574, 0.2328, 0.1340),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "events", type=Path, metavar="EVENTS", help="file with the domains Food, Kitchen, Beauty, Electronics"
    )
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where datasets and runs are kept")
    parser.add_argument("--order", choices=["file", "time"], default="file", help="of a user's events at one time")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=40, metavar="N", help="at most (default: %(default)s)")


def run(arguments: argparse.Namespace) -> Outcome:
    """Train and test both pairs."""
    for name in ("seeds", "epochs"):
        if getattr(arguments, name) < 1:
            raise WrongUse(f"--{name}: must be at least 1, got {getattr(arguments, name)}")
    found: dict[str, Any] = {}
    for pair in PAIRS:
        dataset = _dataset(arguments.events, arguments.work, pair, arguments.order)
        for domain, results in _tested(dataset, arguments.work, pair, arguments.seeds, arguments.epochs).items():
            found[domain] = {"ours": results, "abxi": dict(zip(METRICS, ABXI[domain], strict=True))}
    reached = [domain for domain, both in found.items() if _reached(both)]
    content = {"order": arguments.order, "candidates": CANDIDATES, "domains": found, "at_or_above": reached}
    return Outcome([_table(found, arguments.order)], content)


def _dataset(events: Path, work: Path, pair: tuple[str, str], order: str) -> Dataset:
    path = work / f"{pair[0]}-{pair[1]}.dataset"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        rows = pl.read_csv(events) if events.suffix in {".csv", ".gz"} else pl.read_parquet(events)
        rows = rows.filter(pl.col("domain").is_in(pair))
        if order == "file":
            # A microsecond a row keeps the order of the file; nothing else depends on so little time.
            rows = rows.with_columns(pl.col("timestamp").cast(pl.Float64) + pl.int_range(pl.len()) * 1e-6)
        file = work / f"{pair[0]}-{pair[1]}.csv"
        rows.write_csv(file)
        prepare([EventSource(file)], path, PrepareOptions(domains=pair, split="leave-one-out", repeats="keep"))
        file.unlink()
    return open_dataset(path)


def _tested(
    dataset: Dataset, work: Path, pair: tuple[str, str], seeds: int, epochs: int
) -> dict[str, dict[str, float]]:
    """Means over the seeds of what is served, by domain and metric."""
    tables = []
    for seed in range(1, seeds + 1):
        path = work / f"{pair[0]}-{pair[1]}-{seed}.run"
        train_piece(path, replace(default(), seed=seed, epochs=epochs), dataset)
        print(f"testing {path}", file=sys.stderr, flush=True)
        result = evaluate(open_trained(path), Protocol(exclude_seen=True, sampled=CANDIDATES))
        tables.append({domain: table["mixture"] for domain, table in result["as_published"]["domains"].items()})
    for domain in pair:
        if tables[0][domain] is None:
            raise WorkFailed(f"{dataset.path}: no user's last event is in {domain}: nothing to test")
    return {
        domain: {metric: sum(table[domain][metric] for table in tables) / seeds for metric in METRICS}
        for domain in pair
    }


def _reached(both: dict[str, dict[str, float]]) -> bool:
    return all(both["ours"][metric] >= both["abxi"][metric] for metric in METRICS)


def _table(found: dict[str, Any], order: str) -> StudyTable:
    rows = [
        [domain, name, *(f"{both[who][metric]:.4f}" for metric in METRICS)]
        for domain, both in found.items()
        for who, name in (("ours", "default"), ("abxi", "ABXI, published"))
    ]
    title = (
        f"leave-one-out, 1 + {CANDIDATES} candidates of the target's domain, events of one time in order of the {order}"
    )
    return StudyTable(title, ["domain", "model", *(metric.upper() for metric in METRICS)], rows, left=(0, 1))
