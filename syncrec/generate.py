"""Synthetic events of several domains with known truth: how related the domains are, and how predictable at best.

EVENTS is a new .csv, .csv.gz or .parquet file. Beside it, EVENTS.truth.json holds the world and the Bayes NLL per domain,
the floor of any model's NLL. A user's repeats belong to what is generated: prepare it with --repeats keep.

  syncrec generate --out events.parquet
  syncrec generate --preset many-domains --domains 20 --users 100000 --events 50 100 --seed 1 --out events.csv.gz
"""

import argparse
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import numpy as np
import polars as pl
from polars.exceptions import ComputeError

from formats.errors import WorkFailed, WrongUse
from syncrec.console import ProgressLine, table, write_json
from training.generate import Histories, bayes_nll, generate
from training.truth import World, all_related, all_unrelated, five_domains, many_domains

FIVE_DOMAINS: Final = "five-domains"
PRESETS: Final[dict[str, Callable[[int, int, int], World]]] = {
    "all-related": all_related,
    "all-unrelated": all_unrelated,
    "many-domains": many_domains,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--out", required=True, type=Path, metavar="EVENTS", help="the file to make")
    parser.add_argument("--preset", choices=(FIVE_DOMAINS, *PRESETS), default=FIVE_DOMAINS, help="default: %(default)s")
    parser.add_argument("--domains", type=int, metavar="N", help="for the other presets (default: 5)")
    parser.add_argument("--users", type=int, default=10_000, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--events", type=int, nargs=2, default=(30, 60), metavar=("MIN", "MAX"), help="per user (default: 30 60)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Generate the events and print what is true of them."""
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise WrongUse(f"--json {arguments.json}: no such folder")
    out, truth_file = arguments.out, arguments.out.with_name(f"{arguments.out.name}.truth.json")
    write = _writer(out)
    world = _world(arguments)
    line = ProgressLine()
    try:
        with _new_files(out, truth_file) as (events_part, truth_part):
            histories = generate(world, line.show)
            line.show("measuring")
            truth = _truth(world, histories)
            line.show("writing")
            write(histories.table(world), events_part)
            _write_synced(truth_part, truth)
    finally:
        line.clear()
    if str(arguments.json) != "-":
        print(_describe(world, truth))
        print(f"wrote {out} and {truth_file}")
    if arguments.json is not None:
        write_json(arguments.json, truth)
    return 0


def _world(arguments: argparse.Namespace) -> World:
    users, seed = arguments.users, arguments.seed
    if arguments.preset == FIVE_DOMAINS:
        if arguments.domains is not None:
            raise WrongUse(f"--domains belongs to the presets {', '.join(PRESETS)}")
        world = five_domains(users, seed)
    else:
        domains = 5 if arguments.domains is None else arguments.domains
        if domains < 1:
            raise WrongUse("--domains is at least 1")
        world = PRESETS[arguments.preset](domains, users, seed)
    return replace(world, events=tuple(arguments.events))


def _writer(out: Path) -> Callable[[pl.LazyFrame, Path], None]:
    """What writes this kind of file, to the disk and not only to the system's memory."""
    if out.name.endswith(".parquet"):
        return lambda events, file: events.sink_parquet(file, sync_on_close="all")
    if out.name.endswith(".csv"):
        return lambda events, file: events.sink_csv(file, sync_on_close="all")
    if out.name.endswith(".csv.gz"):
        return lambda events, file: events.sink_csv(file, compression="gzip", sync_on_close="all")
    raise WrongUse(f"--out {out}: unknown kind of file; known: .csv, .csv.gz, .parquet")


@contextmanager
def _new_files(*files: Path) -> Iterator[list[Path]]:
    """Yield a temporary name for each file; rename them when the block ends well, the last one first, else leave none.

    Raises:
        WrongUse: one of the files exists already; nothing is touched.
        WorkFailed: they cannot be written, or the disk is full.
    """
    _refuse_existing(files)
    folder = files[0].with_name(f".{files[0].name}.{uuid4().hex[:8]}.partial")
    parts = [folder / file.name for file in files]
    try:
        folder.mkdir(parents=True)
        yield parts
        _refuse_existing(files)
        for part, file in reversed(list(zip(parts, files, strict=True))):
            part.rename(file)
    except OSError as error:
        raise WorkFailed(f"cannot write {files[0]}: {error.strerror or error}") from error
    except ComputeError as error:
        # How Polars reports a Parquet file that it could not write, without the system's reason in some cases.
        raise WorkFailed(f"cannot write {files[0]}: is the disk full? ({error})") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_existing(files: tuple[Path, ...]) -> None:
    for file in files:
        if file.exists() or file.is_symlink():
            raise WrongUse(f"{file} exists already: name another file or remove it first")


def _write_synced(file: Path, content: dict[str, Any]) -> None:
    with file.open("w") as stream:
        stream.write(json.dumps(content, indent=2) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def _truth(world: World, histories: Histories) -> dict[str, Any]:
    """What the truth file holds; a domain without events has no NLL."""
    events = np.bincount(histories.domain, minlength=len(world.domains)).tolist()
    floors = bayes_nll(world, histories).tolist()
    domains = [
        {
            "name": domain.name,
            "kind": domain.kind,
            "events": count,
            "bayes_nll": floor if count else None,
            "uniform_nll": math.log(domain.items),
        }
        for domain, count, floor in zip(world.domains, events, floors, strict=True)
    ]
    return {"schema_version": 1, "world": asdict(world), "domains": domains}


def _describe(world: World, truth: dict[str, Any]) -> str:
    header = ["domain", "kind", "rho", "share", "m", "items", "events", "Bayes NLL (nats)", "uniform NLL"]
    rows = [
        [
            domain.name,
            domain.kind,
            f"{domain.relatedness:.2f}",
            f"{domain.share:.3f}",
            f"{domain.sequential:.2f}",
            f"{domain.items:,}",
            f"{known['events']:,}",
            "-" if known["bayes_nll"] is None else f"{known['bayes_nll']:.4f}",
            f"{known['uniform_nll']:.4f}",
        ]
        for domain, known in zip(world.domains, truth["domains"], strict=True)
    ]
    return table(header, rows, left=(0, 1))
