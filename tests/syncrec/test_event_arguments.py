"""The arguments that prepare and load-histories share."""

import argparse

import pytest

from formats.errors import WrongUse
from syncrec.event_arguments import (
    add_event_arguments,
    chosen_columns,
    chosen_kinds,
    chosen_max_bad,
    chosen_sources,
)


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_event_arguments(parser)
    return parser.parse_args(words)


def test_files_globs_and_files_of_one_domain_come_in_the_order_given(tmp_path):
    for name in ("b.csv", "a.csv", "toys.csv"):
        (tmp_path / name).touch()
    found = chosen_sources(parsed(f"{tmp_path}/[ab].csv", "--domain", f"Toys={tmp_path}/toys.csv"))
    assert [(source.path.name, source.domain) for source in found] == [
        ("a.csv", None),
        ("b.csv", None),
        ("toys.csv", "Toys"),
    ]


def test_columns_map_our_names_to_theirs():
    assert chosen_columns(parsed("--columns", "user_id=reviewerID,item_id=asin")) == {
        "user_id": "reviewerID",
        "item_id": "asin",
    }


def test_kinds_are_interactions_unless_others_are_named():
    assert chosen_kinds(parsed()) == ("interaction",)
    assert chosen_kinds(parsed("--events", "interaction,click,click")) == ("click", "interaction")


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (chosen_sources, []),
        (chosen_sources, ["no-such-file.csv"]),
        (chosen_sources, ["--domain", "Toys"]),
        (chosen_sources, ["--domain", "=toys.csv"]),
        (chosen_columns, ["--columns", "user_id"]),
        (chosen_columns, ["--columns", "reviewer=reviewerID"]),
        (chosen_kinds, ["--events", "purchase"]),
        (chosen_kinds, ["--events", ","]),
        (chosen_max_bad, ["--max-bad", "2"]),
        (chosen_max_bad, ["--max-bad", "nan"]),
    ],
)
def test_what_cannot_be_meant_is_wrong_use(choose, words):
    with pytest.raises(WrongUse):
        choose(parsed(*words))
