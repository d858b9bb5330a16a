"""Methods against each other on equal terms: the same data, the same number of trials, the same cap on time, the same seeds.

    work/
        log.jsonl                     every trial: method, what was set, validation NDCG@10, epochs, seconds
        results.json                  what is known so far
        <method>/trial-<n>.run        trained on the earlier cut, chosen by validation
        <method>/seed-<s>.run         trained like the best trial on all events before the test, tested

A piece that is finished is not done again, so a race goes on where it was stopped, and with other methods.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from formats.errors import WorkFailed
from formats.files import replace_file
from training.case_results import CaseResults, case_results
from training.checkpoint import read_checkpoint
from training.run import BEST

LOG, FINISHED, TESTED = "log.jsonl", "finished", "cases-test.parquet"


@dataclass(frozen=True)
class Entrant:
    """A method and what may be chosen for it.

    trials: `key=value` words of each trial; the first ones are tried.
    seeded: whether another seed gives another model.
    """

    name: str
    preset: str
    trials: Sequence[Sequence[str]]
    seeded: bool = True


@dataclass(frozen=True)
class Course:
    """What all entrants run on.

    earlier: dataset with a validation part, which trials are chosen by.
    whole: dataset of the same events without one: all before the test trains.
    work: folder of the pieces.
    trials: so many of each entrant's.
    seeds: of the tested runs.
    max_cases: test events per domain, at most.
    limits: `key=value` words for everything that the training loop trains.
    """

    earlier: Path
    whole: Path
    work: Path
    trials: int
    seeds: Sequence[int]
    max_cases: int
    limits: Sequence[str]


def race(entrants: Sequence[Entrant], course: Course, jobs: int, report: Callable[[str], None]) -> None:
    """Run every piece that is missing, several side by side.

    Raises:
        WorkFailed: a piece failed; its last line says why, and all finished ones stay.
    """
    course.work.mkdir(parents=True, exist_ok=True)
    runner = _Runner(course, report)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for waiting in [pool.submit(runner.run, entrant) for entrant in entrants]:
                waiting.result()
        except BaseException:  # Ctrl-C too: what has not begun shall not begin; raised again
            pool.shutdown(cancel_futures=True)
            raise


def tested(entrant: Entrant, course: Course) -> list[CaseResults]:
    """Results of an entrant's seeds on the test events; nothing if it has not run yet."""
    return [case_results(run, "test") for run in seed_runs(entrant, course)]


def chosen(entrant: Entrant, course: Course) -> dict[str, Any] | None:
    """The best trial by validation: what was set, score and epochs; None before all are done."""
    trials = [trial_run(entrant, course, number) for number in range(_count(entrant, course))]
    if not all((trial / FINISHED).exists() for trial in trials):
        return None
    notes = [read_checkpoint(trial / BEST)[1] for trial in trials]
    best = max(range(len(trials)), key=lambda number: float(notes[number]["validation_ndcg_at_10"]))
    return {
        "trial": best,
        "set": list(entrant.trials[best]),
        "validation_ndcg_at_10": notes[best]["validation_ndcg_at_10"],
        "epochs": notes[best]["epoch"],
    }


class _Runner:
    def __init__(self, course: Course, report: Callable[[str], None]) -> None:
        self.course, self.report = course, report
        self.lock = threading.Lock()

    def run(self, entrant: Entrant) -> None:
        """All pieces of one entrant, one after the other."""
        course = self.course
        for number in range(_count(entrant, course)):
            run = trial_run(entrant, course, number)
            words = [*(course.limits if entrant.seeded else []), *entrant.trials[number]]
            settings = [part for word in words for part in ("--set", word)]
            self._train(run, str(course.earlier), "--preset", entrant.preset, *settings)
        found = chosen(entrant, course)
        assert found is not None
        like = trial_run(entrant, course, found["trial"])
        for seed in _seeds(entrant, course):
            run = _seed_run(entrant, course, seed)
            self._train(run, str(course.whole), "--like", str(like), "--set", f"seed={seed}")
            if not (run / TESTED).exists():
                self._command("evaluate", str(run), "--max-cases", str(course.max_cases))
                self.report(f"{entrant.name}: seed {seed} tested")

    def _train(self, run: Path, *words: str) -> None:
        if (run / FINISHED).exists():
            return
        started = time.monotonic()
        run.parent.mkdir(exist_ok=True)
        begun = any(run.rglob("last.safetensors"))
        self._command("train", words[0], "--out", str(run), *(["--resume"] if begun else words[1:]))
        _, notes = read_checkpoint(run / BEST)
        line = {
            "run": f"{run.parent.name}/{run.name}",
            "words": [word for word in words[1:] if word != "--set" and not Path(word).is_absolute()],
            "validation_ndcg_at_10": notes["validation_ndcg_at_10"],
            "epochs": notes["epoch"],
            "seconds": round(time.monotonic() - started, 1),
        }
        with self.lock, (self.course.work / LOG).open("a") as log:
            log.write(json.dumps(line) + "\n")
        (run / FINISHED).touch()
        self.report(f"{line['run']}: trained in {line['seconds']} s")

    def _command(self, *words: str) -> None:
        # One thread each: two trainings side by side are faster than one after the other on two threads.
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "syncrec", *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise WorkFailed(f"syncrec {' '.join(words)}: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")


def seed_runs(entrant: Entrant, course: Course) -> list[Path]:
    """Folders of an entrant's tested runs that are there."""
    runs = [_seed_run(entrant, course, seed) for seed in _seeds(entrant, course)]
    return [run for run in runs if (run / TESTED).exists()]


def write_results(course: Course, content: dict[str, Any]) -> None:
    """Keep what is known so far beside the pieces."""
    replace_file(course.work / "results.json", json.dumps(content, indent=2).encode() + b"\n")


def _count(entrant: Entrant, course: Course) -> int:
    return min(course.trials, len(entrant.trials))


def _seeds(entrant: Entrant, course: Course) -> Sequence[int]:
    return course.seeds if entrant.seeded else course.seeds[:1]


def trial_run(entrant: Entrant, course: Course, number: int) -> Path:
    """The folder of one of an entrant's trials."""
    return course.work / entrant.name / f"trial-{number}.run"


def _seed_run(entrant: Entrant, course: Course, seed: int) -> Path:
    return course.work / entrant.name / f"seed-{seed}.run"
