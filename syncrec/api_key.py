"""Make an API key: the key itself for the client, shown once, and its hash for the service's settings.

  syncrec api-key --role read --name web
  syncrec api-key --role admin --name ops-2
  syncrec api-key --role read+write --name shop --hash < key.txt

The service keeps only hashes, so nobody can look a key up later. Several keys may stand side by side with a comma between;
docs/security.md says how one is replaced by another.
"""

import argparse
import getpass
import sys

from service.access.keys import GRANTED, new_key, setting_entry


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--role", required=True, choices=list(GRANTED), help="what the key may do; admin may do everything"
    )
    parser.add_argument("--name", required=True, help="for logs, metrics and rotation: letters, digits, dots, dashes")
    parser.add_argument(
        "--hash", action="store_true", help="read a key from standard input instead of making one, and do not show it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the key, unless it was given, and the entry of the setting."""
    key = _given_key() if arguments.hash else new_key()
    variable, entry = setting_entry(arguments.name, arguments.role, key)
    if not arguments.hash:
        print(f"key, for the client alone, shown this once:\n  {key}\n")
    print(f"entry of {variable}, with a comma after those that are there already:\n  {entry}")
    return 0


def _given_key() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("key: ").strip()
    return sys.stdin.readline().strip()
