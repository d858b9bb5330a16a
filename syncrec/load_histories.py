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

from syncrec.console import ProgressLine, duration, write_json
from syncrec.event_arguments import (
    add_event_arguments,
    chosen_columns,
    chosen_kinds,
    chosen_max_bad,
    chosen_sources,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_event_arguments(parser)
    parser.add_argument(
        "--redis",
        metavar="URL",
        help="redis://, rediss:// or unix:// URL, or embedded (default: $SYNCREC_REDIS_URL, else embedded)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Load and print what was loaded."""
    from service.history.embedded import redis_at
    from service.history.load import LoadOptions, load_histories
    from service.settings import read_settings

    settings = read_settings(redis_url=arguments.redis)
    options = LoadOptions(
        columns=chosen_columns(arguments),
        kinds=chosen_kinds(arguments),
        keep_repeats=arguments.repeats == "keep",
        max_bad=chosen_max_bad(arguments),
        history_limit=settings.history_limit,
        history_days=settings.history_days,
    )
    sources = chosen_sources(arguments)
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
