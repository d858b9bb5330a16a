"""Servers take turns in short rounds, so that what else goes on in the machine meets all of them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median

import numpy as np

from formats.errors import WorkFailed
from syncrec.serving_bench.load import Load, Measured
from syncrec.serving_bench.servers import OURS, PLAIN, Server, our_path

# Above it, the same server's throughput was seen to halve.
QUIET_CORES = 0.3
OPEN_CONNECTIONS = 256


@dataclass(frozen=True)
class Scenario:
    """A load. rate: requests per second of an open loop; 0 is a closed loop of `concurrency` connections."""

    concurrency: int
    rate: float = 0.0

    @property
    def name(self) -> str:
        """As the table names it."""
        return f"open, {self.rate:,.0f}/s" if self.rate else f"c={self.concurrency}"


@dataclass(frozen=True)
class Round:
    """One server under one load for a moment. cpu_us: the server's processor time per request."""

    server: str
    load: str
    requests_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    errors: dict[str, int]
    cpu_us: float
    generator_cpu_us: float
    others_cores: float


@dataclass(frozen=True)
class Comparison:
    """Ours divided by a peer, round by round: median, lowest, highest. Times of processor and p99 likewise.

    others_cores: the median; is_quiet: whether throughput and latency may be judged by.
    """

    load: str
    peer: str
    requests_per_s: tuple[float, float, float]
    cpu_us: tuple[float, float, float]
    p99_ms: tuple[float, float, float]
    others_cores: float
    is_quiet: bool


@dataclass(frozen=True)
class Plan:
    """How to measure.

    rounds: per server and load.
    warm_s, measure_s: of a round, at least.
    answer_s: what an answer takes without load. Where answers take long, rounds are as long as a queue of them needs.
    """

    rounds: int
    warm_s: float
    measure_s: float
    answer_s: float
    users: int
    key: str
    helpers: list[int]


def run_rounds(
    servers: Sequence[Server], scenario: Scenario, plan: Plan, progress: Callable[[str], None]
) -> list[Round]:
    """Measure all servers under one load, ABAB..., in the order of measuring."""
    found = []
    for number in range(plan.rounds):
        for server in servers:
            progress(f"{scenario.name}: round {number + 1} of {plan.rounds}: {server.name}")
            found.append(_round(server, scenario, plan, seed=number))
    return found


def summed_up(rounds: Sequence[Round]) -> Iterator[Round]:
    """The median of every server's rounds under every load; errors are added."""
    for load, server in dict.fromkeys((one.load, one.server) for one in rounds):
        own = [one for one in rounds if (one.load, one.server) == (load, server)]
        errors: dict[str, int] = {}
        for what, count in (entry for one in own for entry in one.errors.items()):
            errors[what] = errors.get(what, 0) + count
        figures = {
            one.name: median(getattr(round_, one.name) for round_ in own) for one in fields(Round) if one.type is float
        }
        yield Round(server=server, load=load, errors=errors, **figures)


def compared(rounds: Sequence[Round]) -> Iterator[Comparison]:
    """Ours with every peer under every load."""
    for load, peer in dict.fromkeys((one.load, one.server) for one in rounds if one.server != OURS):
        ours, theirs = ([one for one in rounds if (one.load, one.server) == (load, name)] for name in (OURS, peer))
        others = median(one.others_cores for one in [*ours, *theirs])
        yield Comparison(
            load=load,
            peer=peer,
            requests_per_s=_ratios(ours, theirs, "requests_per_s"),
            cpu_us=_ratios(ours, theirs, "cpu_us"),
            p99_ms=_ratios(ours, theirs, "p99_ms"),
            others_cores=others,
            is_quiet=others <= QUIET_CORES,
        )


def rate_of_plain(rounds: Sequence[Round], share: float) -> float:
    """A share of the most that `plain` answered per second: a rate that every server of interest can keep up with."""
    return share * max(one.requests_per_s for one in summed_up(rounds) if one.server == PLAIN)


def _ratios(ours: Sequence[Round], theirs: Sequence[Round], figure: str) -> tuple[float, float, float]:
    ratios = [getattr(one, figure) / getattr(other, figure) for one, other in zip(ours, theirs, strict=True)]
    return median(ratios), min(ratios), max(ratios)


def _round(server: Server, scenario: Scenario, plan: Plan, seed: int) -> Round:
    all_answered_s = 0.0 if scenario.rate else scenario.concurrency * plan.answer_s
    load = Load(
        port=server.port,
        users=plan.users,
        key=plan.key,
        concurrency=scenario.concurrency,
        rate=scenario.rate,
        warm_s=max(plan.warm_s, all_answered_s),
        measure_s=max(plan.measure_s, 2 * all_answered_s),
        server=server.processes,
        helpers=plan.helpers,
        seed=seed,
    )
    command = [sys.executable, "-P", "-m", "syncrec.serving_bench.load"]
    ended = subprocess.run(
        command,
        input=json.dumps(asdict(load)),
        env={**os.environ, "PYTHONPATH": our_path()},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        raise WorkFailed(f"the load generator failed: {ended.stderr.strip().splitlines()[-1]}")
    measured = Measured(**json.loads(ended.stdout))
    answered = len(measured.latencies_ms)
    if not answered:
        raise WorkFailed(
            f"{server.name} answered nothing in {load.measure_s:g} s at {scenario.name}: {measured.errors}"
        )
    p50, p95, p99 = np.percentile(measured.latencies_ms, [50, 95, 99]).tolist()
    return Round(
        server=server.name,
        load=scenario.name,
        requests_per_s=answered / measured.seconds,
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        errors=measured.errors,
        cpu_us=1e6 * measured.server_cpu_s / answered,
        generator_cpu_us=1e6 * measured.generator_cpu_s / answered,
        others_cores=measured.others_cores,
    )
