"""Train SyNCRec on a dataset; the best epoch by validation is kept.

Example:
  syncrec train grocery.dataset --out grocery.run
  syncrec train grocery.dataset --out paper.run --preset paper --set epochs=50
  syncrec train newer.dataset --out newer.run --like grocery.run
  torchrun --nproc-per-node 2 -m syncrec train grocery.dataset --out grocery.run

The run's folder holds the config, the checkpoints, a log (log.jsonl: losses, gaps, lambda and weights per domain) and a
figure of it. Ctrl-C saves; --resume goes on with the same numbers as if nothing had happened.
"""

import argparse
import time
from pathlib import Path

from formats.errors import StoppedByUser, WorkFailed, WrongUse
from syncrec.console import ProgressLine, duration
from training.config import RunConfig
from training.configured import configured
from training.dataset import Dataset, open_dataset
from training.loop import Progress, Stopped
from training.methods import PRESETS
from training.mixture import MIXTURE
from training.processes import Processes, joined_processes
from training.refit import config_like, copy_mixture
from training.run import FIGURE, LAST, LOG, RUN, dataset_of, read_run, write_run
from training.served import choose_mixture, serves_mixture
from training.trainings import training_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="folder made by syncrec prepare")
    parser.add_argument("--out", type=Path, required=True, metavar="RUN", help="folder of the run")
    parser.add_argument("--preset", choices=sorted(PRESETS), help="default: default")
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML or JSON with keys of the config")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="assignments")
    parser.add_argument(
        "--like",
        type=Path,
        metavar="RUN",
        help="config, epochs and mixture of this finished run; needs no validation events",
    )
    parser.add_argument("--resume", action="store_true", help="go on with RUN where it was left")


def run(arguments: argparse.Namespace) -> int:
    """Train; returns 0, or 1 after Ctrl-C."""
    with joined_processes() as processes:
        dataset, config = _opened(arguments, processes)
        training = training_of(
            dataset, config, arguments.out, processes, Reporter(processes, validated=dataset.validation.events > 0)
        )
        if arguments.resume:
            training.resume()
        started = time.monotonic()
        try:
            best = training.train()
        except Stopped:
            raise StoppedByUser(
                f"stopped {training.position()}; saved: the same command with --resume goes on"
            ) from None
        finally:
            _draw(arguments.out, processes)
        if processes.rank == 0:
            if serves_mixture(config) and not (arguments.out / MIXTURE).exists():
                choose_mixture(arguments.out, arguments.dataset)
            found = (
                f"validation NDCG@10 {best:.4f} (mean of the domains)" if dataset.validation.events else "not validated"
            )
            print(f"{arguments.out}: {training.chosen()}, {found}, {duration(time.monotonic() - started)}")
    return 0


class Reporter:
    """Progress on a terminal; a line per epoch."""

    def __init__(self, processes: Processes, validated: bool) -> None:
        self.silent = processes.rank != 0
        self.validated = validated
        self.line = ProgressLine()

    def __call__(self, now: Progress) -> None:
        """Show where the training stands."""
        if self.silent:
            return
        of_part = f"{now.part}: " if now.part else ""
        if now.score is None:
            self.line.show(
                f"{of_part}epoch {now.epoch}  step {now.step}/{now.steps}  loss {now.loss:.4f}  "
                f"{now.events_per_second:,.0f} events/s  {duration(now.epoch_seconds_left)} left in this epoch"
            )
            return
        self.line.clear()
        best = "best so far" if now.best_epoch == now.epoch else f"best {now.best_score:.4f} in epoch {now.best_epoch}"
        found = f"  validation NDCG@10 {now.score:.4f}  {best}" if self.validated else ""
        print(
            f"{of_part}epoch {now.epoch:3}  loss {now.loss:.4f}  {now.events_per_second:,.0f} events/s{found}",
            flush=True,
        )


def _opened(arguments: argparse.Namespace, processes: Processes) -> tuple[Dataset, RunConfig]:
    out: Path = arguments.out
    if arguments.resume:
        if arguments.config or arguments.assignments:
            raise WrongUse("--resume goes on with the config of the run: leave out --config and --set")
        former = read_run(out)
        return dataset_of(former, arguments.dataset), former.config
    if arguments.like and arguments.preset:
        raise WrongUse("--like goes on with the config of a run: leave out --preset")
    preset = config_like(arguments.like) if arguments.like else PRESETS[arguments.preset or "default"]()
    config = configured(preset, arguments.config, arguments.assignments)
    dataset = open_dataset(arguments.dataset)
    config.network(dataset.items_per_domain)
    if processes.rank == 0:
        if not dataset.validation.events and not arguments.like:
            raise WorkFailed(
                f"{dataset.path}: no validation events, so nothing says which epoch is best: prepare with other cuts, or name a "
                "run on an earlier cut with --like"
            )
        if serves_mixture(config) and not dataset.validation.events and not (arguments.like / MIXTURE).exists():
            raise WorkFailed(
                f"{dataset.path}: no validation events to choose the mixture on, and {arguments.like} has none: train that run to "
                "its end, or set mixture=false"
            )
        if any(out.rglob(LAST)):  # in a folder below, where a run has parts
            raise WrongUse(f"{out} holds a run already: --resume goes on with it, or name another folder")
        # A run that was killed before its first checkpoint has nothing to go on with, and nothing to lose.
        if out.exists() and not (out / RUN).exists() and (not out.is_dir() or any(out.iterdir())):
            raise WrongUse(f"{out} exists already: name another folder or remove it first")
        out.mkdir(parents=True, exist_ok=True)
        write_run(out, config, dataset)
        (out / MIXTURE).unlink(missing_ok=True)  # taken over by a run that was killed before its first checkpoint
        if arguments.like:
            copy_mixture(arguments.like, out)
    return dataset, config


def _draw(out: Path, processes: Processes) -> None:
    logs = list(out.rglob(LOG)) if processes.rank == 0 else []
    if logs:
        from training.figure import draw_training  # matplotlib takes a second to load

        for log in logs:
            draw_training(log, log.with_name(FIGURE))
