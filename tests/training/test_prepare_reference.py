"""`prepare` against the slow and obvious version, on random small tables."""

from unittest.mock import patch

import numpy as np
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


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(events, min_size=1, max_size=40),
    whole_seconds=st.booleans(),
    key_bits=st.sampled_from([7, 64]),
    repeats=st.sampled_from(["drop", "keep"]),
    split=st.sampled_from(["temporal", "leave-one-out"]),
    min_item_events=st.integers(1, 3),
    min_user_events=st.integers(1, 3),
)
def test_prepare_equals_the_slow_and_obvious_version(
    tmp_path_factory, rows, whole_seconds, key_bits, repeats, split, min_item_events, min_user_events
):
    if whole_seconds:
        rows = [event for event in rows if event.time % 1_000_000 == 0] or [rows[0]._replace(time=0)]
    limits = {"repeats": repeats, "min_item_events": min_item_events, "min_user_events": min_user_events}
    cuts = (2_000_000, 3_000_000) if split == "temporal" else (None, None)
    period_of = temporal(*cuts) if split == "temporal" else leave_one_out
    wanted = prepare_reference(rows, period_of=period_of, **limits)
    options = PrepareOptions(split=split, validation_from=cuts[0], test_from=cuts[1], **limits)
    try:
        # With few bits for a sort key, times are ranks and most ties are settled by the whole hash afterwards.
        with patch("training.ordering._KEY_BITS", key_bits), patch("training.ordering._REPEATS_BLOCK", 8):
            dataset = prepared(tmp_path_factory.mktemp("prepare"), rows, options)
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
