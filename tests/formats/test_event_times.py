from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.errors import WrongUse
from formats.event_times import FIRST_SECOND, LAST_SECOND, format_time, parse_time, time_microseconds

NOON = datetime(2024, 1, 31, 12, tzinfo=UTC)
NOON_SECONDS = int(NOON.timestamp())


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("0", 0),
        ("-5", -5_000_000),
        (f"{NOON_SECONDS}", NOON_SECONDS * 1_000_000),
        (f" {NOON_SECONDS}.25 ", NOON_SECONDS * 1_000_000 + 250_000),
        ("2024-01-31", (NOON_SECONDS - 12 * 3600) * 1_000_000),
        ("2024-01-31T12:00", NOON_SECONDS * 1_000_000),
        ("2024-01-31 12:00:01", (NOON_SECONDS + 1) * 1_000_000),
        ("2024-01-31T12:00:01Z", (NOON_SECONDS + 1) * 1_000_000),
        ("2024-01-31T12:00:00.000001Z", NOON_SECONDS * 1_000_000 + 1),
        ("2024-01-31T14:00:00+02:00", NOON_SECONDS * 1_000_000),
        ("2024-01-31T14:00+02:00", NOON_SECONDS * 1_000_000),
    ],
)
def test_a_time_is_seconds_or_iso_8601_in_utc(text, microseconds):
    assert parse_time(text) == microseconds


@pytest.mark.parametrize(
    "text", ["", "x", "nan", "inf", "2024-13-01", "2024-01-31T25:00", "31.01.2024", f"{NOON_SECONDS}000"]
)
def test_what_is_no_time_is_refused_and_milliseconds_are_no_seconds(text):
    with pytest.raises(WrongUse, match="is no time"):
        parse_time(text)


@settings(deadline=None)
@given(st.integers(FIRST_SECOND * 1_000_000, LAST_SECOND * 1_000_000 + 999_999))
def test_a_formatted_time_is_read_back_to_the_same_microsecond(microseconds):
    assert parse_time(format_time(microseconds)) == microseconds


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([NOON_SECONDS], dtype=pl.UInt32),
        pl.Series([float(NOON_SECONDS)]),
        pl.Series([NOON.replace(tzinfo=None)], dtype=pl.Datetime("ms")),
        pl.Series([NOON], dtype=pl.Datetime("ns", "UTC")),
        pl.Series([NOON]).dt.convert_time_zone("Asia/Tokyo"),
        pl.Series([NOON.isoformat()]),
    ],
    ids=lambda column: str(column.dtype),
)
def test_each_column_type_that_holds_times_gives_the_same_microseconds(column):
    frame = pl.DataFrame({"timestamp": column})
    times = frame.select(time_microseconds("timestamp", column.dtype).alias("time"))
    assert times["time"].to_list() == [NOON_SECONDS * 1_000_000]


def test_a_column_type_that_holds_no_times_is_refused():
    with pytest.raises(TypeError, match="Boolean"):
        time_microseconds("timestamp", pl.Boolean())
