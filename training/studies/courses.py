"""Arguments of the studies that train: two cuts of one dataset, and how much may be tried."""

import argparse
import sys
from pathlib import Path

from formats.errors import WrongUse
from training.dataset import open_dataset
from training.studies.race import Course


def add_course_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `course_of` reads."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="with a validation part")
    parser.add_argument("--whole", type=Path, required=True, metavar="DATASET", help="the same without one")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the pieces are kept")
    parser.add_argument(
        "--trials", type=int, default=1, metavar="N", help="of each row (default: %(default)s, at most 4)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of each row (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=10, metavar="M", help="cap of a training (default: %(default)s)"
    )
    parser.add_argument("--max-cases", type=int, default=3000, metavar="N", help="test events per domain at most")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="pieces side by side, one thread each")


def course_of(arguments: argparse.Namespace) -> Course:
    """What the arguments ask for.

    Raises:
        WrongUse: a number below 1.
        WorkFailed: there is no dataset.
    """
    for name in ("trials", "seeds", "max_cases", "jobs"):
        if getattr(arguments, name) < 1:
            raise WrongUse(f"--{name.replace('_', '-')}: must be at least 1, got {getattr(arguments, name)}")
    for path in (arguments.dataset, arguments.whole):
        open_dataset(path)
    return Course(
        earlier=arguments.dataset.resolve(),
        whole=arguments.whole.resolve(),
        work=arguments.work.resolve(),
        trials=arguments.trials,
        seeds=range(1, arguments.seeds + 1),
        max_cases=arguments.max_cases,
        limits=("patience=3", f"max_minutes={arguments.minutes}"),
    )


def say(line: str) -> None:
    """A line of progress, on standard error."""
    print(line, file=sys.stderr, flush=True)
