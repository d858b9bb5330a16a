"""A/B tests: how many users one needs, what one has shown so far, and simulated ones whose truth is known.

plan says how many users and days are needed, from the event log of a time as long as the experiment shall be. report rolls up the event log
(only days that changed) and says what came of an experiment. simulate writes a log and a definition of users who are not real, with a known
lift and, with --fault, one thing wrong. docs/experiments.md explains every number and every warning.

  syncrec experiment plan --log log --minimum-effect 0.05 --days 14
  syncrec experiment report new-ranker --log log --redis redis://localhost:6379/0 --out report.md
  syncrec experiment report new-ranker --log log --definition new-ranker.json --at 2026-12-03 --format json
  syncrec experiment simulate --out simulated --lift 0.214
  syncrec experiment report simulated --log simulated --definition simulated/experiment.json --at 2026-03-18
"""

import argparse
import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from formats.errors import WorkFailed, WrongUse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from service.experiments.definition import Experiment

TIMEOUT_MS = 30_000
FAULTS_HELP = "one thing that is wrong, as docs/experiments.md lists them"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    does = parser.add_subparsers(dest="does", required=True, metavar="plan|report|simulate")
    _plan_arguments(does.add_parser("plan", help="users and days that an experiment needs"))
    _report_arguments(does.add_parser("report", help="what came of an experiment"))
    _simulate_arguments(does.add_parser("simulate", help="a log and a definition with known truth"))


def run(arguments: argparse.Namespace) -> int:
    """Plan, report or simulate."""
    return {"plan": _plan, "report": _report, "simulate": _simulate}[arguments.does](arguments)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    _log_arguments(parser)
    parser.add_argument(
        "--redis", metavar="URL", help="whose experiments' click windows count (default: one day for all)"
    )
    parser.add_argument(
        "--minimum-effect", type=float, default=0.05, metavar="SHARE", help="relative (default: %(default)s)"
    )
    parser.add_argument("--days", type=int, default=14, metavar="N", help="of the experiment (default: %(default)s)")
    parser.add_argument(
        "--traffic", type=float, default=1.0, metavar="SHARE", help="of users that enter (default: %(default)s)"
    )
    parser.add_argument(
        "--power",
        type=float,
        default=0.8,
        metavar="SHARE",
        help="probability to find the effect (default: %(default)s)",
    )


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="of the experiment")
    _log_arguments(parser)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--definition", type=Path, metavar="FILE", help="its definition as GET /experiments/KEY gives it"
    )
    where.add_argument("--redis", metavar="URL", help="where the services keep definitions, as docs/redis.md says")
    parser.add_argument("--format", choices=("markdown", "json"), default="markdown", help="default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: standard output")


def _log_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--log", type=Path, required=True, metavar="DIR", help="folder that events drain writes")
    parser.add_argument("--at", type=_time, metavar="TIME", help="ISO 8601, UTC if it names no zone (default: now)")


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new or empty folder")
    parser.add_argument("--lift", type=float, default=0.214, metavar="SHARE", help="true lift (default: %(default)s)")
    parser.add_argument("--users", type=int, default=4000, metavar="N", help="of both arms (default: %(default)s)")
    parser.add_argument("--days", type=int, default=14, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--fault", metavar="NAME", help=FAULTS_HELP)


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("no ISO 8601 time") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _plan(arguments: argparse.Namespace) -> int:
    from service.experiments.analysis import wording
    from service.experiments.analysis.plan import plan
    from service.experiments.analysis.ratio import CTR
    from service.experiments.pilot import pilot_of

    if not 0 < arguments.power < 1 or not 0 < arguments.traffic <= 1 or not 1 <= arguments.days <= 365:
        raise WrongUse("--power is between 0 and 1, --traffic above 0 and at most 1, --days 1 to 365")
    if not 0 < arguments.minimum_effect <= 10:
        raise WrongUse("--minimum-effect is above 0 and at most 10; 0.05 is 5 %")
    at = arguments.at or datetime.now(UTC)
    known = {} if arguments.redis is None else _definitions(arguments.redis)
    _roll_up(arguments.log, known, at)
    pilot = pilot_of(arguments.log, arguments.days, at)
    found = plan(
        pilot.sums,
        CTR,
        arguments.minimum_effect,
        pilot.new_users_per_day,
        traffic=arguments.traffic,
        looks=arguments.days,
        power=arguments.power,
    )
    print(f"From {pilot.sums.n:,} users of {pilot.first} to {pilot.last}. {wording.plan(found)}")
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from service.experiments.analysis.render import as_json, as_markdown
    from service.experiments.evidence import report_of

    at = arguments.at or datetime.now(UTC)
    known = _from_file(arguments.definition) if arguments.redis is None else _definitions(arguments.redis)
    if arguments.key not in known:
        raise WrongUse(f"there is no experiment '{arguments.key}'; known: {', '.join(sorted(known)) or 'none'}")
    _roll_up(arguments.log, known, at)
    report = report_of(arguments.log, known[arguments.key], at)
    text = as_json(report) + b"\n" if arguments.format == "json" else as_markdown(report).encode()
    if arguments.out is None:
        sys.stdout.write(text.decode())
        return 0
    try:
        arguments.out.write_bytes(text)
    except OSError as error:
        raise WorkFailed(f"cannot write {arguments.out}: {error.strerror}") from error
    return 0


def _simulate(arguments: argparse.Namespace) -> int:
    from service.events.simulate import DEFINITION, FAULTS, Scenario, simulate

    if arguments.fault is not None and arguments.fault not in FAULTS:
        raise WrongUse(f"--fault {arguments.fault}: known are {', '.join(FAULTS)}")
    if not -1 <= arguments.lift <= 10 or not 1 <= arguments.users <= 1_000_000 or not 1 <= arguments.days <= 365:
        raise WrongUse("--lift is -1 to 10, --users 1 to 1,000,000, --days 1 to 365")
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise WrongUse(f"{arguments.out} is not empty")
    arguments.out.mkdir(parents=True, exist_ok=True)
    scenario = Scenario(
        lift=arguments.lift, users=arguments.users, days=arguments.days, seed=arguments.seed, fault=arguments.fault
    )
    experiment = simulate(arguments.out, scenario)
    print(
        f"{scenario.users:,} users, {scenario.days} days, true lift {100 * scenario.lift:.1f} %. What comes of it:\n"
        f"syncrec experiment report {experiment.key} --log {arguments.out} --definition {arguments.out / DEFINITION} "
        f"--at {scenario.report_at:%Y-%m-%d}"
    )
    return 0


def _roll_up(log: Path, known: "Mapping[str, Experiment]", at: datetime) -> None:
    from service.events.files import together
    from service.experiments.rolled_days import roll_up_options
    from service.experiments.rollup import roll_up

    if not log.is_dir():
        raise WrongUse(f"{log}: no such folder")
    with together(log):
        roll_up(log, roll_up_options(known.values(), at))


def _from_file(file: Path) -> "dict[str, Experiment]":
    from service.errors import InvalidRequest
    from service.experiments.definition import check, read_experiment

    try:
        experiment = read_experiment(file.read_bytes())
        check(experiment)
    except InvalidRequest as error:
        raise WorkFailed(f"{file}: {error}") from error
    return {experiment.key: experiment}


def _definitions(url: str) -> "dict[str, Experiment]":
    """All that the services have.

    Raises:
        WorkFailed: Redis does not answer.
    """
    from service.failures import REDIS_FAILURES, short_reason

    try:
        return asyncio.run(_read_definitions(url))
    except REDIS_FAILURES as error:
        raise WorkFailed(f"Redis fails ({short_reason(error)})") from error


async def _read_definitions(url: str) -> "dict[str, Experiment]":
    from service.experiments.store import ExperimentStore
    from service.redis_client.client import open_redis

    async with open_redis(url, timeout_ms=TIMEOUT_MS, connections=1) as redis:
        store = ExperimentStore(redis)
        await store.refresh()
        return dict(store.current.by_key)
