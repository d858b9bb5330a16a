"""What a domain without relation to the others does to them: with joint training, with LC-NTG, and in what is served.

Example:
  syncrec study dissimilar amazon4.dataset --domain Food --work dissimilar-amazon4 --jobs 2
  syncrec study dissimilar amazon4.dataset --domain Food --work quick --seeds 1 --minutes 1

Two further datasets are made of DATASET: one in which everybody's events of --domain are somebody else's, and one with a domain of
noise, a quarter of all events. The test events of the other domains stay the same in all three; told is how much worse they are
predicted. SDSR of the same network never reads another domain and is the control. What is finished is not done again. Writes
DIR/results.json and DIR/dissimilar.png.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from formats.errors import WrongUse
from model.mixed_ranker import CROSS, SINGLE
from training.bootstrap import Estimate, user_bootstrap
from training.case_results import CaseResults, case_results
from training.dataset import Dataset, open_dataset
from training.metrics import ndcg_at_k
from training.run import open_trained
from training.served import MIXED
from training.studies.courses import say
from training.studies.drawing import Point, drawn, intervals, legend, title
from training.studies.outcome import Outcome, StudyTable
from training.studies.peers import NETWORKS
from training.studies.race import Course, Entrant, race, seed_runs, write_results
from training.studies.strangers import NOISE, with_exchanged_users, with_noise

FIGURE: Final = "dissimilar.png"
JOINT: Final = Entrant("joint", "sasrec-ss", NETWORKS)
UNIFORM: Final = Entrant("uniform", "default", [(*words, "weight_floor=1", "mixture=false") for words in NETWORKS])
DEFAULT: Final = Entrant("default", "default", NETWORKS)
# All cases: a drawn part of them would be another one where a domain was added.
_ALL_CASES: Final = 10**9


class Method(NamedTuple):
    """What is compared: one of the scorers of an entrant's runs."""

    entrant: Entrant
    scorer: str


METHODS: Final = {
    "joint SASRec": Method(JOINT, CROSS),
    "CDSR without LC-NTG": Method(UNIFORM, CROSS),
    "CDSR with LC-NTG": Method(DEFAULT, CROSS),
    "served mixture": Method(DEFAULT, MIXED),
    "SDSR (control)": Method(DEFAULT, SINGLE),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", type=Path, metavar="DATASET", help="split by time, with a validation part")
    parser.add_argument("--domain", required=True, metavar="NAME", help="whose users are exchanged")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where the pieces are kept")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="of each training (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, default=10, metavar="M", help="cap of a training (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="pieces side by side, one thread each")


def run(arguments: argparse.Namespace) -> Outcome:
    """Make the datasets, train what is missing, and compare."""
    if arguments.seeds < 1 or arguments.jobs < 1:
        raise WrongUse("--seeds and --jobs must be at least 1")
    dataset, work, domain = open_dataset(arguments.dataset), arguments.work.resolve(), arguments.domain
    as_it_is = _course(dataset.path.resolve(), work / "as-it-is", arguments)
    altered = {
        f"{domain} exchanged": (
            domain,
            _altered(work, "exchanged", lambda path: with_exchanged_users(dataset, domain, path)),
        ),
        "noise added": (NOISE, _altered(work, "noise", lambda path: with_noise(dataset, path))),
    }
    courses = {name: _course(path, path.parent, arguments) for name, (_, path) in altered.items()}
    for course in (as_it_is, *courses.values()):
        race([JOINT, UNIFORM, DEFAULT], course, arguments.jobs, say)
    left_out = {domain, NOISE}
    content = {
        "domain": domain,
        "metric": "ndcg@10",
        "seeds": arguments.seeds,
        "weights": {name: _weights(course) for name, course in {"as it is": as_it_is, **courses}.items()},
        "worlds": {
            name: {method: _changes(METHODS[method], as_it_is, course, dataset, left_out) for method in METHODS}
            for name, course in courses.items()
        },
    }
    write_results(Course(**{**vars(as_it_is), "work": work}), content)
    _draw(work / FIGURE, content["worlds"])
    return Outcome(_tables(content["worlds"]), content)


def per_case(results: Sequence[CaseResults], left_out: set[str]) -> pl.DataFrame:
    """NDCG@10 of the test events of all other domains, mean of the seeds, by user, in each user's order of time.

    Returns:
        user_id, domain, value. Rows of two datasets that differ in nothing but the domains left out belong together.
    """
    values = np.mean([ndcg_at_k(one.ranks, 10) for one in results], axis=0)
    table = results[0].cases.with_columns(pl.col("domain").cast(pl.String), value=pl.Series(values))
    kept = table.filter(~pl.col("domain").is_in(list(left_out)))
    return kept.sort("user_id", "place").select("user_id", "domain", "value")


def _altered(work: Path, name: str, make: Callable[[Path], None]) -> Path:
    path = work / name / "dataset"
    if not path.exists():
        make(path)
    return path


def _course(dataset: Path, work: Path, arguments: argparse.Namespace) -> Course:
    return Course(
        earlier=dataset,
        whole=dataset,
        work=work,
        trials=1,
        seeds=range(1, arguments.seeds + 1),
        max_cases=_ALL_CASES,
        limits=("patience=3", f"max_minutes={arguments.minutes}"),
    )


def _changes(method: Method, before: Course, after: Course, dataset: Dataset, left_out: set[str]) -> dict[str, Any]:
    """By domain and in their mean (`macro`): NDCG@10 before, after, and the difference with its interval."""
    was, now = (
        per_case([case_results(run, "test", method.scorer) for run in seed_runs(method.entrant, course)], left_out)
        for course in (before, after)
    )
    assert was.select("user_id", "domain").equals(now.select("user_id", "domain"))
    domains = [name for name in dataset.domains if name not in left_out]
    number = was["domain"].replace_strict({name: place for place, name in enumerate(domains)}).to_numpy()
    user = was["user_id"].rank("dense").to_numpy().astype(np.int64)
    found = user_bootstrap((now["value"] - was["value"]).to_numpy(), user, number, len(domains))
    means = [was.filter(pl.col("domain") == name)["value"].mean() for name in domains]
    return {
        "macro": _told(np.mean([mean for mean in means if mean is not None]), found.macro),
        "domains": {name: _told(mean, one) for name, mean, one in zip(domains, means, found.groups, strict=True)},
    }


def _told(before: Any, estimate: Estimate | None) -> dict[str, Any] | None:
    if estimate is None:
        return None
    return {"before": float(before), "after": float(before) + estimate.value, **asdict(estimate)}


def _weights(course: Course) -> dict[str, float]:
    """What LC-NTG gives the losses of each domain in the end, mean of the seeds."""
    opened = [open_trained(run) for run in seed_runs(DEFAULT, course)]
    weights = np.mean([one.objective.per_domain()["weight"] for one in opened], axis=0)
    return dict(zip(opened[0].dataset.domains, weights.tolist(), strict=True))


def _tables(worlds: Mapping[str, Mapping[str, dict[str, Any]]]) -> list[StudyTable]:
    tables = []
    for name, methods in worlds.items():
        domains = list(next(iter(methods.values()))["domains"])
        rows = [
            [method, *_cells(found["macro"]), *(_cells(found["domains"][domain])[1] for domain in domains)]
            for method, found in methods.items()
        ]
        header = ["method", "before", "change", "from", "to", *domains]
        text = f"{name}: change of NDCG@10 in the other domains, their mean with 95 % interval over users, and each"
        tables.append(StudyTable(text, header, rows))
    return tables


def _cells(found: dict[str, Any] | None) -> list[str]:
    if found is None:
        return ["–"] * 4
    ends = found["interval"] or {"low": float("nan"), "high": float("nan")}
    share = found["value"] / found["before"] if found["before"] else float("nan")
    return [f"{found['before']:.4f}", f"{share:+.1%}", f"{ends['low']:+.4f}", f"{ends['high']:+.4f}"]


def _draw(file: Path, worlds: Mapping[str, Mapping[str, dict[str, Any]]]) -> None:
    with drawn(file, 1, len(worlds), (12, 4.5)) as (figure, panels):
        for axes, (name, methods) in zip(panels[0], worlds.items(), strict=True):
            domains = list(next(iter(methods.values()))["domains"])
            series = {
                method: [_point(found["macro"]), *(_point(found["domains"][domain]) for domain in domains)]
                for method, found in methods.items()
            }
            intervals(axes, ["mean of the domains", *domains], series)
            title(axes, f"{name}: what the other domains lose", "change of NDCG@10 with 95 % interval over users")
        legend(figure, panels[0, 0])


def _point(found: dict[str, Any] | None) -> Point | None:
    if found is None:
        return None
    ends = found["interval"] or {"low": found["value"], "high": found["value"]}
    return Point(found["value"], ends["low"], ends["high"])
