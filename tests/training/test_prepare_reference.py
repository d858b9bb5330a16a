"""`prepare` against the slow and obvious version, on random small tables."""

from random import Random
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.errors import WorkFailed
from formats.events import EventSource
from tests.reference.prepare_reference import Event, leave_one_out, prepare_reference, temporal
from training.dataset import open_dataset
from training.manifest import PARTS
from training.prepare import PrepareOptions, prepare

events = st.builds(
    Event,
    user=st.sampled_from(["a", "b", "c", "d", "é"]),
    domain=st.sampled_from(["D", "E", "EE"]),
    item=st.sampled_from(["1", "2", "10", "x", "y"]),
    # Whole seconds and fractions, before and after 1970, with many ties.
    time=st.sampled_from([-1_000_000, 0, 1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000]),
)


def prepared(folder, rows, options):
    lines = [f"{event.user},{event.item},{event.domain},{event.time / 1e6}" for event in rows]
    (folder / "events.csv").write_text("\n".join(["user_id,item_id,domain,timestamp", *lines]) + "\n")
    prepare([EventSource(folder / "events.csv")], folder / "dataset", options)
    return open_dataset(folder / "dataset")


def table_of(dataset, part):
    table, ids = dataset.part(part), dataset.all_user_ids
    columns = (table.item_index, table.domain, table.timestamp)
    by_user = {
        ids[user]: list(zip(*(column[table.of_user(user)].tolist() for column in columns), strict=True))
        for user in range(table.users)
    }
    return {user: rows for user, rows in by_user.items() if rows}


def check_against_reference(folder, rows, split, **limits):
    cuts = (2_000_000, 3_000_000) if split == "temporal" else (None, None)
    period_of = temporal(*cuts) if split == "temporal" else leave_one_out
    wanted = prepare_reference(rows, period_of=period_of, **limits)
    options = PrepareOptions(split=split, validation_from=cuts[0], test_from=cuts[1], **limits)
    try:
        dataset = prepared(folder, rows, options)
    except WorkFailed:
        # Nothing is left to train on, and nothing was to be left.
        assert not wanted.items
        return
    catalogue = dataset.catalogue()
    assert catalogue.select("domain", "item_id").rows() == wanted.items
    assert catalogue["popularity"].to_list() == wanted.popularity
    assert dataset.all_user_ids.to_list() == wanted.users
    for part in PARTS:
        assert table_of(dataset, part) == wanted.parts[part]
    report = dataset.manifest.report
    found = {(reason, row.domain): count for row in report.rows for reason, count in row.dropped.items()}
    assert found == dict(wanted.dropped)
    assert [tuple(one.model_dump().values()) for one in report.threshold_rounds] == wanted.rounds
    np.testing.assert_allclose(report.tied_share, wanted.tied, atol=1e-6)


splits = st.sampled_from(["temporal", "leave-one-out"])
repeat_modes = st.sampled_from(["drop", "keep"])


@settings(max_examples=150, deadline=None)
@given(st.lists(events, min_size=1, max_size=25), splits, repeat_modes, st.integers(1, 3), st.integers(1, 3))
def test_prepare_equals_the_slow_and_obvious_version_on_few_events(
    tmp_path_factory, rows, split, repeats, min_item_events, min_user_events
):
    check_against_reference(
        tmp_path_factory.mktemp("prepare"),
        rows,
        split,
        repeats=repeats,
        min_item_events=min_item_events,
        min_user_events=min_user_events,
    )


@pytest.mark.parametrize("split", ["temporal", "leave-one-out"])
@pytest.mark.parametrize("repeats", ["drop", "keep"])
@pytest.mark.parametrize("step", [500_000, 1_000_000], ids=["half seconds", "whole seconds"])
# With few bits for a sort key, times are ranks and most ties are settled by the whole hash afterwards.
@pytest.mark.parametrize("key_bits", [8, 64])
def test_prepare_equals_the_slow_and_obvious_version_on_many_ties(tmp_path, split, repeats, step, key_bits):
    random = Random(f"{split} {repeats} {step} {key_bits}")
    rows = [
        # Some users have many events and some few, some items too.
        Event(
            user=f"u{int(25 * random.random() ** 2)}",
            domain=random.choice("DEF"),
            item=f"{int(12 * random.random() ** 2)}",
            time=random.randrange(8) * step,
        )
        for _ in range(450)
    ]
    with patch("training.ordering._KEY_BITS", key_bits), patch("training.ordering._REPEATS_BLOCK", 16):
        check_against_reference(tmp_path, rows, split, repeats=repeats, min_item_events=3, min_user_events=3)
