"""An event log with known truth: simulated users in a running experiment, written as a drain writes it; and faults, one at a time.

Users come at random times, each with its own rate and its own readiness to click, before the experiment and while it runs. They click
less the further down an item is. `lift` multiplies the click rate of the treatment. Everything depends on the seed alone.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from formats.files import replace_file
from service.events.files import Table, add_part, arrow_table, table_of, write_counts
from service.events.served import Row, Served, ServedList, Told, day_of
from service.experiments.assignment import Assigner
from service.experiments.definition import Experiment, Policy, Variant, as_json, changed
from service.experiments.population import Population

Fault = Literal[
    "lost-exposures",
    "lost-users",
    "duplicates",
    "late",
    "clock-skew",
    "stray",
    "bots",
    "mixed-users",
    "unequal-lists",
    "fallback-peak",
    "novelty",
    "imbalance",
    "changed",
]
FAULTS: Final[tuple[Fault, ...]] = get_args(Fault)

START: Final = datetime(2026, 3, 2, tzinfo=UTC)  # a Monday
CONTROL, TREATMENT = "A", "B"
DOMAINS: Final = ("Books", "Toys")
CATALOGUE: Final = 500  # items of each domain
DAY_S: Final = 86_400
DEFINITION: Final = "experiment.json"
TRUTH: Final = "truth.json"


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    lift: true relative lift of click-through.
    users: of both arms. days: that the experiment runs. past_days: of the same users before.
    """

    lift: float = 0.214
    users: int = 4000
    days: int = 14
    past_days: int = 7
    seed: int = 0
    fault: Fault | None = None
    population: Population = field(default_factory=Population)

    @property
    def end(self) -> datetime:
        """When it is planned to end."""
        return START + timedelta(days=self.days)

    @property
    def report_at(self) -> datetime:
        """When every click window is over."""
        return self.end + timedelta(days=2)


def simulate(out: Path, scenario: Scenario) -> Experiment:
    """Write the log, and beside it the definition (`experiment.json`) and the truth (`truth.json`).

    Returns:
        The definition.

    Raises:
        WorkFailed: a file cannot be written.
    """
    experiment = definition_of(scenario)
    rows, served = simulated_rows(experiment, scenario)
    write_rows(out, rows)
    for day, counts in served.items():
        write_counts(out, day, counts)
    replace_file(out / DEFINITION, as_json(experiment))
    truth = {"lift": scenario.lift, "seed": scenario.seed, "fault": scenario.fault, "report_at": scenario.report_at}
    replace_file(out / TRUTH, msgspec.json.encode(truth))
    return experiment


def write_rows(out: Path, rows: list[Row]) -> None:
    """One file for each table and day."""
    of_day: dict[tuple[Table, str], list[Row]] = {}
    for row in rows:
        of_day.setdefault((table_of(row), day_of(row)), []).append(row)
    for (table, day), of_one in sorted(of_day.items()):
        add_part(out, table, day, arrow_table(table, of_one))


def definition_of(scenario: Scenario) -> Experiment:
    """Started at `START` for all users, half of them in each arm."""
    wanted = Experiment(
        key="simulated",
        hypothesis="Simulated users click more in B.",
        variants=(Variant(CONTROL), Variant(TREATMENT, policy=Policy(model_version="b"))),
        state="running",
        salt=f"simulated {scenario.seed}",
        planned_end=scenario.end.isoformat(),
    )
    experiment = changed(None, wanted, [], START.timestamp())
    if scenario.fault == "changed":
        half_time = START + timedelta(days=scenario.days / 2)
        wanted = msgspec.structs.replace(experiment, minimum_effect=0.01)
        experiment = changed(experiment, wanted, [], half_time.timestamp())
    return experiment


def simulated_rows(experiment: Experiment, scenario: Scenario) -> tuple[list[Row], dict[str, Counter[Any]]]:
    """All rows in the order of their users, and how many recommendations the service counted, by day and arm."""
    rng = np.random.default_rng(scenario.seed)
    crowd = _Crowd(experiment, scenario, rng)
    rows = crowd.rows()
    served: dict[str, Counter[Any]] = {}
    for row in rows:
        if isinstance(row, Served) and row.experiment is not None:
            served.setdefault(day_of(row), Counter())[row.experiment, row.variant] += 1
    if scenario.fault in _SPOILS:
        rows = _SPOILS[scenario.fault](rows, scenario, rng)
    return rows, served


@dataclass(frozen=True)
class _Request:
    """One request. second: since the start of the experiment; chances, delays: of a click of each rank, [positions]."""

    user: int
    second: float
    latency_ms: float
    fate: float
    shift: int
    id_bits: int
    chances: NDArray[np.float64]
    delays: NDArray[np.float64]


class _Crowd:
    """The users, and what they see and do."""

    def __init__(self, experiment: Experiment, scenario: Scenario, rng: np.random.Generator) -> None:
        self._experiment, self._scenario, self._rng = experiment, scenario, rng
        self._names = [f"u{number}" for number in range(scenario.users)]
        assigner = Assigner({experiment.key: experiment})
        self._arms = [assigner.assignment(experiment.key, name).variant for name in self._names]
        self._people = scenario.population.draw(scenario.users, rng)
        if scenario.fault == "bots":
            # One user in 200 asks as often as a hundred do, and clicks nothing.
            self._people.rate[::200] = 100 * scenario.population.requests
            self._people.ctr[::200] = 0
        falling = 1 / np.sqrt(np.arange(1, scenario.population.positions + 1))
        self._by_rank = falling / falling.mean()

    def rows(self) -> list[Row]:
        """Recommendations, each before its clicks."""
        return [row for request in self._requests() for row in self._answered(request)]

    def _requests(self) -> Iterator[_Request]:
        scenario, rng = self._scenario, self._rng
        length = scenario.past_days + scenario.days
        user = np.repeat(np.arange(scenario.users), rng.poisson(self._people.rate * length / scenario.days))
        n, positions = len(user), scenario.population.positions
        drawn = zip(
            user.tolist(),
            rng.uniform(-scenario.past_days * DAY_S, scenario.days * DAY_S, n).tolist(),
            rng.lognormal(3.0, 0.7, n).tolist(),
            rng.random(n).tolist(),
            rng.integers(CATALOGUE, size=n).tolist(),
            rng.integers(2**60, size=n).tolist(),
            rng.random((n, positions)),
            1 + rng.exponential(120, (n, positions)),
            strict=True,
        )
        return (_Request(*one) for one in drawn)

    def _answered(self, request: _Request) -> list[Row]:
        """What is served, and what of it is clicked."""
        fault, at, user_id = self._scenario.fault, START.timestamp() + request.second, self._names[request.user]
        arm = self._arms[request.user]
        variant = arm if request.second >= 0 else None
        treated = variant == TREATMENT
        if fault == "lost-users" and treated and request.user % 3 == 0:
            return []  # It crashes for them before it answers.
        failed = request.fate < 0.001
        fallback_from = 0.7 if fault == "fallback-peak" and treated else 0.95
        k = len(request.chances) // (2 if fault == "unequal-lists" and treated else 1)
        domain = DOMAINS[request.shift % 2]
        items = [f"{domain} {(request.shift + step * step) % CATALOGUE}" for step in range(k)]
        served = Served(
            recommendation_id=_uuid7(at, request.id_bits),
            user_id=user_id,
            experiment=None if variant is None else self._experiment.key,
            variant=variant,
            reason=None if variant is None else "SPLIT",
            source="popularity" if request.fate > fallback_from else "model",
            model_version="b" if treated else "a",
            latency_ms=request.latency_ms,
            error=failed,
            lists=[] if failed else [ServedList(domain, items)],
        )
        if failed:
            return [served]
        lift = self._lift(request.second) if arm == TREATMENT else 0.0
        rates = float(self._people.ctr[request.user]) * (1 + lift) * self._by_rank
        places = np.flatnonzero(request.chances[:k] < rates[:k]).tolist()
        return [served, *(_click(served, place, at + float(request.delays[place])) for place in places)]

    def _lift(self, second: float) -> float:
        """Of the treatment at this time since the start."""
        fault, lift = self._scenario.fault, self._scenario.lift
        if second < 0:
            return 1.0 if fault == "imbalance" else 0.0
        # Three times as many clicks at first, and half of that is gone every other day.
        return lift + (2.0 * 0.7 ** (second / DAY_S) if fault == "novelty" else 0.0)


def _click(of: Served, place: int, at: float) -> Told:
    [shown] = of.lists
    return Told(
        user_id=of.user_id,
        item_id=shown.item_ids[place],
        domain=shown.domain,
        timestamp=at,
        event="click",
        event_id=f"{of.recommendation_id} {place}",
        recommendation_id=of.recommendation_id,
        rank=place + 1,
    )


def _uuid7(at: float, id_bits: int) -> str:
    """Of this time, and otherwise of these 60 bits."""
    digits = f"{int(at * 1000):012x}7{id_bits >> 48:03x}8{id_bits & (2**48 - 1):015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


Spoil = Callable[[list[Row], Scenario, np.random.Generator], list[Row]]


def _treated(row: Row) -> bool:
    return isinstance(row, Served) and row.variant == TREATMENT


def _some(rows: list[Row], share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = rng.random(len(rows)) < share
    return chosen


def _lost_exposures(rows: list[Row], scenario: Scenario, _: np.random.Generator) -> list[Row]:
    """The treatment's recommendations of one day are not in the log."""
    lost = (START + timedelta(days=scenario.days // 2)).date().isoformat()
    return [row for row in rows if not (_treated(row) and day_of(row) == lost)]


def _doubled(rows: list[Row], _: Scenario, rng: np.random.Generator) -> list[Row]:
    """A tenth of all rows come twice."""
    chosen = _some(rows, 0.1, rng)
    return rows + [row for row, again in zip(rows, chosen, strict=True) if again]


def _moved(seconds: float) -> Spoil:
    """A fifth of all clicks say a time that is so far from theirs."""

    def spoil(rows: list[Row], _: Scenario, rng: np.random.Generator) -> list[Row]:
        chosen = _some(rows, 0.2, rng)
        return [
            msgspec.structs.replace(row, timestamp=row.timestamp + seconds) if isinstance(row, Told) and moved else row
            for row, moved in zip(rows, chosen, strict=True)
        ]

    return spoil


def _stray(rows: list[Row], _: Scenario, rng: np.random.Generator) -> list[Row]:
    """A tenth of all clicks name a recommendation that nobody made."""
    chosen = _some(rows, 0.1, rng)
    return [
        msgspec.structs.replace(row, recommendation_id=_uuid7(row.timestamp, int(rng.integers(2**60))))
        if isinstance(row, Told) and lost
        else row
        for row, lost in zip(rows, chosen, strict=True)
    ]


def _mixed_users(rows: list[Row], _: Scenario, rng: np.random.Generator) -> list[Row]:
    """A tenth of the treatment's answers say that they are the control's: a cache that does not know of arms."""
    chosen = _some(rows, 0.1, rng)
    return [
        msgspec.structs.replace(row, variant=CONTROL) if _treated(row) and mixed else row
        for row, mixed in zip(rows, chosen, strict=True)
    ]


# Faults of the log, made after the service has counted; all others are of what users see and do.
_SPOILS: Final[dict[Fault, Spoil]] = {
    "lost-exposures": _lost_exposures,
    "duplicates": _doubled,
    "late": _moved(2 * DAY_S),
    "clock-skew": _moved(-3600),
    "stray": _stray,
    "mixed-users": _mixed_users,
}
