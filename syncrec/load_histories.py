"""Load user histories from event files into Redis, in place of what is stored for these users.

EVENTS are CSV, TSV (also .gz) or Parquet files, or globs, with the columns user_id, item_id, domain, timestamp (seconds
since 1970 or ISO 8601, UTC) and optionally event (interaction, impression or click). Choose --events and --repeats as
for `syncrec prepare`, so that the model reads histories of the kind it was trained on.

  syncrec load-histories events.csv.gz --redis redis://localhost:6379/0
  syncrec load-histories 'days/*.parquet' --redis embedded
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from formats.errors import WrongUse
from formats.events import KINDS, KNOWN_COLUMNS, EventSource, find_files
from syncrec.console import ProgressLine, duration, write_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("events", nargs="*", metavar="EVENTS", help="event files or globs")
    parser.add_argument(
        "--redis", metavar="URL", help="redis://, rediss:// or unix:// URL, or embedded (default: $SYNCREC_REDIS_URL)"
    )
    parser.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,…", help="names in the files that differ from ours"
    )
    parser.add_argument(
        "--domain", action="append", default=[], metavar="NAME=FILE", help="a file whose rows are all of one domain"
    )
    parser.add_argument(
        "--events",
        dest="kinds",
        default="interaction",
        metavar="KINDS",
        help="kinds that count, as in interaction,click (default: %(default)s)",
    )
    parser.add_argument(
        "--repeats",
        choices=("drop", "keep"),
        default="drop",
        help="drop: only a user's first event of an item; keep: all but exact repeats (default: %(default)s)",
    )
    parser.add_argument(
        "--max-bad",
        type=float,
        default=0.001,
        metavar="SHARE",
        help="malformed rows up to which the work goes on (default: %(default)s)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Load and print what was loaded."""
    from service.history.embedded import redis_at
    from service.history.load import LoadOptions, load_histories
    from service.settings import read_settings

    settings = read_settings(redis_url=arguments.redis)
    options = LoadOptions(
        columns=_columns(arguments.columns),
        kinds=_kinds(arguments.kinds),
        keep_repeats=arguments.repeats == "keep",
        max_bad=arguments.max_bad,
        history_limit=settings.history_limit,
        history_days=settings.history_days,
    )
    sources = _sources(arguments)
    line = ProgressLine()
    with redis_at(settings.redis_url, settings.data_dir) as url:
        try:
            loaded = load_histories(sources, url, options, line.show)
        finally:
            line.clear()
    if arguments.json is not None:
        write_json(arguments.json, {**asdict(loaded), "events_per_second": loaded.events_per_second})
    for example in loaded.examples:
        print(f"skipped {example}", file=sys.stderr)
    print(
        f"{loaded.users:,} users, {loaded.events:,} events, {loaded.malformed:,} malformed rows skipped; "
        f"{loaded.bytes_per_user:,.0f} bytes per user in Redis; "
        f"{loaded.events_per_second:,.0f} events/s, {duration(loaded.seconds)}",
        file=sys.stderr if str(arguments.json) == "-" else sys.stdout,
    )
    return 0


def _sources(arguments: argparse.Namespace) -> list[EventSource]:
    sources = [EventSource(path) for path in find_files(arguments.events)]
    for text in arguments.domain:
        domain, equals, pattern = text.partition("=")
        if not (domain and equals and pattern):
            raise WrongUse(f"--domain {text}: write NAME=FILE")
        sources += [EventSource(path, domain) for path in find_files([pattern])]
    if not sources:
        raise WrongUse("no events: name files, or --domain NAME=FILE")
    return sources


def _columns(text: str) -> dict[str, str]:
    columns = {}
    for pair in filter(None, text.split(",")):
        ours, equals, theirs = pair.partition("=")
        if not (equals and theirs) or ours not in KNOWN_COLUMNS:
            raise WrongUse(f"--columns {pair}: write OURS=THEIRS; ours are {', '.join(KNOWN_COLUMNS)}")
        columns[ours] = theirs
    return columns


def _kinds(text: str) -> list[str]:
    kinds = [kind for kind in text.split(",") if kind]
    if not kinds or set(kinds) - set(KINDS):
        raise WrongUse(f"--events {text}: known kinds are {', '.join(KINDS)}")
    return kinds
