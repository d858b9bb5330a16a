"""Our default against every peer, each tuned with the same budget, on the same test events.

Example:
  syncrec study peers amazon4.dataset --whole amazon4-whole.dataset --work peers-amazon4 --jobs 2
  syncrec study peers amazon4.dataset --whole amazon4-whole.dataset --work quick --trials 1 --seeds 1 --minutes 1 --only item-knn,sasrec-ss

DATASET has a validation part, which chooses trial and epochs; the dataset of --whole is prepared of the same events with
--validation-from and --test-from both at the first one's test, so that everything before the test trains the tested models.
What is finished is not done again: the same command goes on.
"""

import argparse
from collections.abc import Sequence
from typing import Any, Final

from formats.errors import WrongUse
from training.compare import compare
from training.metrics import ndcg_at_k
from training.studies.courses import add_course_arguments, course_of, say
from training.studies.ensemble import ensemble
from training.studies.outcome import Outcome, StudyTable
from training.studies.race import Course, Entrant, chosen, race, seed_runs, tested, write_results

OURS: Final = "default"
SINGLES: Final = "sasrec-ss-per-domain"
NETWORKS: Final = (
    ("layers=1", "dropout=0.2"),
    # More candidates and smaller steps: better where test and training are of one time, not where they are months apart.
    ("layers=1", "dropout=0.3", "candidates=1024", "batch_windows=32"),
    ("layers=1", "dropout=0.5"),
    ("layers=2", "dropout=0.2"),
)
ONE_NEGATIVE: Final = (
    ("layers=1", "dropout=0.2"),
    ("layers=1", "dropout=0.3", "batch_windows=32"),
    ("layers=1", "dropout=0.5"),
    ("layers=2", "dropout=0.2"),
)
# The paper's 512 dimensions cost 64 times the 64 of everybody else here: its method at their size.
PAPER: Final = tuple(("dim=64", "heads=1", "batch_windows=128", *words) for words in ONE_NEGATIVE)
ENTRANTS: Final = (
    Entrant(OURS, "default", NETWORKS),
    Entrant("paper", "paper", PAPER),
    Entrant("recent-popularity", "recent-popularity", (
        ("window_days=7",), ("window_days=0", "half_life_days=4"), ("window_days=0", "half_life_days=14"), ("window_days=30",),
    ), seeded=False),
    Entrant("item-knn", "item-knn", (
        ("damping=0.25", "history_half_life_days=30"), ("damping=0.25", "history_half_life_days=7", "cross_domain=false"),
        ("damping=0.25", "history_half_life_days=0", "history_factor=0.97"), ("damping=0.5", "history_half_life_days=30"),
    ), seeded=False),
    Entrant("v-sknn", "v-sknn", (
        ("sample=1000", "session=10", "idf_weight=0"), ("sample=1000", "idf_weight=0", "cross_domain=false"),
        ("sample=1000", "session=10"), ("sample=2500", "neighbours=500", "session=5", "idf_weight=0", "cross_domain=false"),
    ), seeded=False),
    Entrant("sasrec-ss", "sasrec-ss", NETWORKS),
    Entrant("sasrec-ss-per-domain", "sasrec-ss-per-domain", NETWORKS),
    Entrant("ease", "ease", (("regularization=100",), ("regularization=10",), ("regularization=300",), ("regularization=30",)), seeded=False),
    Entrant("sasrec", "sasrec", ONE_NEGATIVE),
    Entrant("sasrec-per-domain", "sasrec-per-domain", ONE_NEGATIVE),
    Entrant("bert4rec", "bert4rec", NETWORKS),
    Entrant("mmoe", "mmoe", NETWORKS),
    Entrant("ple", "ple", NETWORKS),
    Entrant("sasrec-static", "sasrec-static", (
        ("layers=1", "exponent=0.5"), ("layers=1", "exponent=0"), ("layers=1", "exponent=1"), ("layers=2", "exponent=0.5"),
    )),
    Entrant("sasrec-famo", "sasrec-famo", NETWORKS),
    Entrant("sasrec-pcgrad", "sasrec-pcgrad", NETWORKS),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_course_arguments(parser)
    parser.set_defaults(trials=2)
    parser.add_argument("--only", metavar="A,B", help="these methods alone")


def run(arguments: argparse.Namespace) -> Outcome:
    """Run what is missing, and compare what is there."""
    course = course_of(arguments)
    race(_asked(arguments.only), course, arguments.jobs, say)
    content = results(ENTRANTS, course)
    write_results(course, content)
    return Outcome(_tables(content), content)


def results(entrants: Sequence[Entrant], course: Course) -> dict[str, Any]:
    """Every entrant that has been tested: its trial, NDCG@10 by domain, and our default against it."""
    ours = tested(entrants[0], course)
    found = {}
    for entrant in entrants:
        theirs = tested(entrant, course)
        if theirs and ours:
            found[entrant.name] = {
                "chosen": chosen(entrant, course),
                "seeds": len(theirs),
                **compare(theirs, ours, _metric).to_json(),
            }
    singles = next(seed_runs(entrant, course) for entrant in entrants if entrant.name == SINGLES)
    if ours and len(singles) > 1:
        two = [ensemble(singles[:2])]
        found["two single models"] = {"chosen": None, "seeds": 1, **compare(two, ours, _metric).to_json()}
    return {"ours": entrants[0].name, "metric": "ndcg@10", "max_cases": course.max_cases, "methods": found}


def _metric(ranks: Any) -> Any:
    return ndcg_at_k(ranks, 10)


def _asked(only: str | None) -> Sequence[Entrant]:
    if only is None:
        return ENTRANTS
    known = {entrant.name: entrant for entrant in ENTRANTS}
    for name in only.split(","):
        if name not in known:
            raise WrongUse(f"--only {name}: unknown method; known: {', '.join(known)}")
    return [known[name] for name in only.split(",")]


def _tables(content: dict[str, Any]) -> list[StudyTable]:
    methods = content["methods"]
    if not methods:
        return []
    domains = list(next(iter(methods.values()))["domains"])
    quality = [
        [name, str(found["seeds"]), _mean(found["macro"]), *(_mean(found["domains"][domain]) for domain in domains)]
        for name, found in methods.items()
    ]
    ours = [
        [
            name,
            *_difference(found["macro"]),
            ", ".join(d for d in domains if found["domains"][d] and found["domains"][d]["verdict"] == "worse"),
        ]
        for name, found in methods.items()
        if name != content["ours"]
    ]
    return [
        StudyTable(
            "NDCG@10 of the test events, mean of the domains and each; ± between seeds",
            ["method", "seeds", "mean", *domains],
            quality,
        ),
        StudyTable(
            f"{content['ours']} against each, mean of the domains: difference, 95 % interval over users, what could be seen at 80 % power",
            ["against", "difference", "%", "from", "to", "visible", "domains where ours is worse"],
            ours,
            left=(0, 6),
        ),
    ]


def _mean(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    spread = found["baseline_spread"]
    return f"{found['baseline']:.4f}" + ("" if spread is None else f" ±{spread:.4f}")


def _difference(found: dict[str, Any]) -> list[str]:
    interval = found["interval"]
    share = found["difference"] / found["baseline"] if found["baseline"] else float("nan")
    ends = (
        ["–"] * 3
        if interval is None
        else [f"{interval['low']:+.4f}", f"{interval['high']:+.4f}", f"{interval['visible']:.4f}"]
    )
    return [f"{found['difference']:+.4f}", f"{share:+.1%}", *ends]
