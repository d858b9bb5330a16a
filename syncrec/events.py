"""The event log: from Redis to Parquet, and without a user.

drain reads what the services log (recommendations as served, events as told) and files it by day under DIR. Run it all the time beside the
service, as many as you like, or with --once from a timer. It acknowledges what is safely on disk: whenever it is killed, nothing is lost.

erase removes a user from the files, or all users that were erased over HTTP since. Without --user-id run it daily.

  syncrec events drain --redis redis://localhost:6379/0 --out log --retention-days 90
  syncrec events erase --redis redis://localhost:6379/0 --out log
  syncrec events erase --redis redis://localhost:6379/0 --out log --user-id u42
"""

import argparse
import asyncio
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from syncrec.console import ProgressLine, write_json

if TYPE_CHECKING:
    from service.events.drain import Drained, DrainOptions

TIMEOUT_MS = 30_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    does = parser.add_subparsers(dest="does", required=True, metavar="drain|erase")
    drain = does.add_parser("drain", help="event log -> Parquet by day")
    drain.add_argument("--once", action="store_true", help="stop when nothing is left")
    drain.add_argument(
        "--retention-days",
        type=_days,
        metavar="N",
        help="remove recommendations and events of days before (default: keep all)",
    )
    erase = does.add_parser("erase", help="remove users from the files")
    erase.add_argument(
        "--user-id", metavar="ID", help="this user, from now on (default: all who were erased over HTTP)"
    )
    for one in (drain, erase):
        one.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the event log")
        one.add_argument(
            "--redis",
            metavar="URL",
            help="where the services log, as docs/redis.md says, or embedded (default: $SYNCREC_REDIS_URL, else embedded)",
        )
        one.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Drain or erase, and print what was done."""
    from service.history.embedded import redis_at
    from service.settings import read_settings

    settings = read_settings(redis_url=arguments.redis)
    with redis_at(settings.redis_url, settings.data_dir) as url:
        return _drain(arguments, url) if arguments.does == "drain" else _erase(arguments, url)


def _days(text: str) -> int:
    days = int(text)
    if days < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return days


def _drain(arguments: argparse.Namespace, url: str) -> int:
    from service.events.drain import DrainOptions

    options = DrainOptions(arguments.out, once=arguments.once, retention_days=arguments.retention_days)
    line = ProgressLine()
    try:
        done = asyncio.run(_drain_until_stopped(url, options, line))
    finally:
        line.clear()
    _write(arguments.json, asdict(done))
    text = f"{done.rows:,} rows to {done.files:,} files"
    if done.unreadable:
        text += f"; {done.unreadable:,} cannot be read and stay in Redis"
    if done.too_old:
        text += f"; {done.too_old:,} are of days that are not kept"
    print(text, file=_beside(arguments.json))
    return 0


async def _drain_until_stopped(url: str, options: "DrainOptions", line: ProgressLine) -> "Drained":
    from service.events.drain import Drain
    from service.redis_client.client import open_redis

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with open_redis(url, timeout_ms=TIMEOUT_MS, connections=1) as redis:
        return await Drain(redis, options, line.show).run(stop)


def _erase(arguments: argparse.Namespace, url: str) -> int:
    users, rows = asyncio.run(_erase_users(url, arguments.out, arguments.user_id))
    _write(arguments.json, {"users": users, "rows": rows})
    print(f"{users:,} users, {rows:,} rows", file=_beside(arguments.json))
    return 0


async def _erase_users(url: str, out: Path, user_id: str | None) -> tuple[int, int]:
    import time

    from formats.errors import WorkFailed
    from service.events.erased_files import erase_from_disk
    from service.events.erasure import erased_users, forget_marks, mark_erased, user_hash
    from service.failures import REDIS_FAILURES, short_reason
    from service.redis_client.client import open_redis

    async with open_redis(url, timeout_ms=TIMEOUT_MS, connections=1) as redis:
        try:
            if user_id is not None:
                await mark_erased(redis, user_id, time.time())
            erased = await erased_users(redis)
            if user_id is not None:
                erased = {user_hash(user_id): erased[user_hash(user_id)]}
            rows = erase_from_disk(out, erased)
            if user_id is None:
                await forget_marks(redis, erased)
        except REDIS_FAILURES as error:
            raise WorkFailed(f"Redis fails ({short_reason(error)}); asking again does no harm") from error
    return len(erased), rows


def _write(file: Path | None, result: dict[str, int]) -> None:
    if file is not None:
        write_json(file, result)


def _beside(file: Path | None) -> TextIO:
    return sys.stderr if str(file) == "-" else sys.stdout
