"""Raw events -> encoded dataset, with the table of what was read, kept, dropped and why.

EVENTS are CSV, TSV (also .gz) or Parquet files, or globs, with the columns user_id, item_id, domain, timestamp (seconds
since 1970 or ISO 8601, UTC) and optionally event (interaction, impression or click). DATASET must not exist yet.

  syncrec prepare events.csv.gz --out dataset
  syncrec prepare --domain Books=books.csv --domain Toys=toys.csv --columns user_id=reviewerID,item_id=asin --out dataset
"""

import argparse
from pathlib import Path

from formats.errors import WrongUse
from formats.event_times import parse_time
from syncrec.console import ProgressLine, write_json
from syncrec.event_arguments import (
    add_event_arguments,
    chosen_columns,
    chosen_kinds,
    chosen_max_bad,
    chosen_sources,
)
from syncrec.prepare_table import describe_prepared
from training.prepare import PrepareOptions, prepare


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_event_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="DATASET", help="the folder to make")
    parser.add_argument("--items", type=Path, metavar="FILE", help="item table: item_id,domain,title,category")
    parser.add_argument("--domains", metavar="A,B", help="the known domains; rows of others are dropped (default: all)")
    parser.add_argument(
        "--split", choices=("temporal", "leave-one-out"), default="temporal", help="default: %(default)s"
    )
    parser.add_argument(
        "--validation-from", metavar="TIME", help="temporal split; default: 0.8 quantile of the event times"
    )
    parser.add_argument("--test-from", metavar="TIME", help="temporal split; default: 0.9 quantile of the event times")
    parser.add_argument(
        "--min-item-events", type=int, default=1, metavar="N", help="training events (default: %(default)s)"
    )
    parser.add_argument(
        "--min-user-events", type=int, default=2, metavar="N", help="training events (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON; - is standard output")


def run(arguments: argparse.Namespace) -> int:
    """Make the dataset and print the table."""
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise WrongUse(f"--json {arguments.json}: no such folder")
    line = ProgressLine()
    try:
        prepared = prepare(chosen_sources(arguments), arguments.out, _options(arguments), arguments.items, line.show)
    finally:
        line.clear()
    if str(arguments.json) != "-":
        print(describe_prepared(prepared))
        print(f"wrote {arguments.out}")
    if arguments.json is not None:
        malformed = {"rows": prepared.malformed, "first": prepared.examples}
        write_json(arguments.json, {**prepared.manifest.model_dump(mode="json"), "malformed": malformed})
    return 0


def _options(arguments: argparse.Namespace) -> PrepareOptions:
    return PrepareOptions(
        columns=chosen_columns(arguments),
        domains=tuple(sorted(set(arguments.domains.split(",")))) if arguments.domains else None,
        events=chosen_kinds(arguments),
        split=arguments.split,
        validation_from=parse_time(arguments.validation_from) if arguments.validation_from else None,
        test_from=parse_time(arguments.test_from) if arguments.test_from else None,
        min_item_events=arguments.min_item_events,
        min_user_events=arguments.min_user_events,
        repeats=arguments.repeats,
        max_bad=chosen_max_bad(arguments),
    )
