"""The arguments of every command that reads event files."""

import argparse

from formats.errors import WrongUse
from formats.events import KINDS, KNOWN_COLUMNS, EventSource, find_files


def add_event_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare which files are read, how, and which of their rows count."""
    parser.add_argument("events", nargs="*", metavar="EVENTS", help="event files or globs")
    parser.add_argument(
        "--columns", default="", metavar="OURS=THEIRS,…", help="names in the files that differ from ours"
    )
    parser.add_argument(
        "--domain", action="append", default=[], metavar="NAME=FILE", help="a file whose rows are all of one domain"
    )
    parser.add_argument(
        "--events",
        dest="kinds",
        default=KINDS[0],
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


def chosen_sources(arguments: argparse.Namespace) -> list[EventSource]:
    """The files that EVENTS and --domain name.

    Raises:
        WrongUse: none is named, or a name finds nothing.
    """
    sources = [EventSource(path) for path in find_files(arguments.events)]
    for text in arguments.domain:
        domain, equals, pattern = text.partition("=")
        if not (domain and equals and pattern):
            raise WrongUse(f"--domain {text}: write NAME=FILE")
        sources += [EventSource(path, domain) for path in find_files([pattern])]
    if not sources:
        raise WrongUse("no events: name files, or --domain NAME=FILE")
    return sources


def chosen_columns(arguments: argparse.Namespace) -> dict[str, str]:
    """Standard name -> the files' name, of --columns.

    Raises:
        WrongUse: it is not of the form, or no column of ours.
    """
    columns = {}
    for pair in filter(None, arguments.columns.split(",")):
        ours, equals, theirs = pair.partition("=")
        if not (equals and theirs) or ours not in KNOWN_COLUMNS:
            raise WrongUse(f"--columns {pair}: write OURS=THEIRS; ours are {', '.join(KNOWN_COLUMNS)}")
        columns[ours] = theirs
    return columns


def chosen_kinds(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The kinds of --events, each once, in one order.

    Raises:
        WrongUse: a kind is unknown.
    """
    kinds = tuple(sorted(set(filter(None, arguments.kinds.split(",")))))
    if not kinds or set(kinds) - set(KINDS):
        raise WrongUse(f"--events {arguments.kinds}: known kinds are {', '.join(KINDS)}")
    return kinds


def chosen_max_bad(arguments: argparse.Namespace) -> float:
    """The share of --max-bad.

    Raises:
        WrongUse: it is no share.
    """
    share: float = arguments.max_bad
    if not 0 <= share <= 1:
        raise WrongUse(f"--max-bad is a share between 0 and 1, not {share}")
    return share
