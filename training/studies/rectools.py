"""Our SASRec with a softmax against that of RecTools: the same data, sizes and epochs; NDCG@10 within 5 %?

Example:
  python -m venv rectools && rectools/bin/pip install 'rectools[torch]==0.19.0'
  syncrec prepare amazon4/events.csv.gz --domains Food --split leave-one-out --out food.dataset
  syncrec study rectools food.dataset --python rectools/bin/python --work rectools-food

Both train on a user's newest events, for the same number of epochs without choosing one, and rank the whole domain without what the
user has had. The softmax is over all items of the domain: drawn negatives would be drawn differently, 128 for each target there,
128 for all targets of a step here, and fewer of ours are worth less. What differs: RecTools normalises before each layer and counts
places from the newest event; we normalise after and count from the oldest.
"""

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from formats.errors import WorkFailed, WrongUse
from training.baselines.config import SASRecConfig
from training.cases import Cases, contexts
from training.dataset import Dataset, open_dataset
from training.metrics import Ranks, ndcg_at_k
from training.ranking import rank_cases
from training.run import open_trained
from training.studies.outcome import Outcome, StudyTable
from training.studies.pieces import train_piece
from training.task import catalogue_of

BOUND: Final = 0.05
OURS: Final = SASRecConfig(
    heads=2, layers=2, dropout=0.2, max_history=20, candidates=100_000, every_window=False, batch_windows=128
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="of one domain, split leave-one-out")
    parser.add_argument("--python", type=Path, required=True, metavar="FILE", help="the interpreter that has RecTools")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the runs are kept")
    parser.add_argument("--epochs", type=int, default=15, metavar="N", help="of both (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="of both (default: %(default)s)")


def run(arguments: argparse.Namespace) -> Outcome:
    """Train both, and compare."""
    for name in ("epochs", "seeds"):
        if getattr(arguments, name) < 1:
            raise WrongUse(f"--{name}: must be at least 1, got {getattr(arguments, name)}")
    dataset = open_dataset(arguments.dataset)
    if len(dataset.domains) != 1 or dataset.manifest.split.kind != "leave-one-out":
        raise WrongUse(f"{arguments.dataset}: must be of one domain, split leave-one-out")
    cases = contexts(dataset, "test")
    seeds = range(1, arguments.seeds + 1)
    ours = [_ours(dataset, cases, arguments.work / f"ours-{seed}.run", arguments.epochs, seed) for seed in seeds]
    theirs = [
        _theirs(dataset, cases, arguments.work / f"rectools-{seed}", arguments.python, arguments.epochs, seed)
        for seed in seeds
    ]
    scores = {name: [float(ndcg_at_k(ranks, 10).mean()) for ranks in found] for name, found in _named(ours, theirs)}
    mean = {name: float(np.mean(values)) for name, values in scores.items()}
    apart = mean["ours"] / mean["rectools"] - 1
    rows = [
        [name, str(len(cases)), f"{mean[name]:.4f}", f"{min(values):.4f}", f"{max(values):.4f}"]
        for name, values in scores.items()
    ]
    table = StudyTable(
        f"NDCG@10, {arguments.epochs} epochs, {arguments.seeds} seeds: ours {apart:+.1%} of RecTools'",
        ["SASRec-SS", "cases", "mean", "lowest", "highest"],
        rows,
    )
    content = {"ndcg@10": scores, "difference": apart, "bound": BOUND, "epochs": arguments.epochs, "cases": len(cases)}
    return Outcome([table], content, [] if abs(apart) <= BOUND else ["agreement"])


def _named(ours: list[Ranks], theirs: list[Ranks]) -> list[tuple[str, list[Ranks]]]:
    return [("ours", ours), ("rectools", theirs)]


def _ours(dataset: Dataset, cases: Cases, path: Path, epochs: int, seed: int) -> Ranks:
    config = replace(OURS, epochs=epochs, patience=epochs, seed=seed)
    train_piece(path, config, dataset)
    catalogue = catalogue_of(dataset)
    scorer = next(iter(open_trained(path).objective.scorers(catalogue).values()))
    return rank_cases(cases, scorer, catalogue, exclude_seen=True)


def _theirs(dataset: Dataset, cases: Cases, folder: Path, python: Path, epochs: int, seed: int) -> Ranks:
    if not (folder / "recommended.csv").exists():
        folder.mkdir(parents=True, exist_ok=True)
        _write(dataset, cases, folder, epochs)
        done = subprocess.run(
            [str(python), "-I", str(Path(__file__).with_name("rectools_side.py")), str(folder), str(seed)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WorkFailed(f"{python}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    recommended = pl.read_csv(folder / "recommended.csv")
    asked = pl.DataFrame(
        {"user_id": cases.user, "item_id": cases.target.astype(np.int64), "case": np.arange(len(cases))}
    )
    found = asked.join(recommended.cast({"user_id": pl.Int64, "item_id": pl.Int64}), on=["user_id", "item_id"])
    ranks = np.full(len(cases), np.inf)
    ranks[found["case"].to_numpy()] = found["rank"].to_numpy()
    return ranks


def _write(dataset: Dataset, cases: Cases, folder: Path, epochs: int) -> None:
    settings: dict[str, Any] = {
        "k": 10,
        "model": {
            "n_blocks": OURS.layers,
            "n_heads": OURS.heads,
            "n_factors": OURS.dim,
            "dropout_rate": OURS.dropout,
            "session_max_len": OURS.max_history,
            "lr": OURS.learning_rate,
            "loss": "softmax",
            "batch_size": OURS.batch_windows,
            "epochs": epochs,
        },
    }
    (folder / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    train = dataset.train
    user = np.repeat(np.arange(train.users), np.diff(train.user_offsets))
    _events(user, np.asarray(train.item_index)).write_csv(folder / "train.csv")
    lengths = cases.position - cases.start
    histories = np.concatenate([cases.history(case) for case in range(len(cases))])
    of_case = np.repeat(cases.user, lengths)[histories > 0]
    _events(of_case, histories[histories > 0]).write_csv(folder / "history.csv")
    known = np.unique(of_case)
    pl.DataFrame({"user_id": known}).write_csv(folder / "asked.csv")


def _events(user: Any, item: Any) -> pl.DataFrame:
    """Events in order; RecTools sorts by time, so their number stands in for it."""
    return pl.DataFrame({"user_id": user, "item_id": item.astype(np.int64), "order": np.arange(len(user))})
