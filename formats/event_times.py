"""Times of the event table: int or float seconds since 1970, or ISO 8601; UTC. Inside they are int64 microseconds."""

from typing import Final

import polars as pl

from formats.errors import WrongUse

MICROSECONDS: Final = 1_000_000
# Years 1 to 9999, what ISO 8601 can write. Seconds beyond are milliseconds by mistake far more often than the year 50,000.
FIRST_SECOND: Final = -62_135_596_800
LAST_SECOND: Final = 253_402_300_799

# Tried in this order; the first that fits wins. `%.f` takes an optional fraction, `%:z` an offset such as +02:00.
_ISO_FORMATS: Final = ("%Y-%m-%dT%H:%M:%S%.f%:z", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M%:z", "%Y-%m-%dT%H:%M")


def time_microseconds(column: str, dtype: pl.DataType) -> pl.Expr:
    """The expression that turns a column of times of this type into microseconds, null where it is no time.

    Raises:
        TypeError: the type cannot hold a time.
    """
    value = pl.col(column)
    if dtype.is_integer():
        return _from_integers(value.cast(pl.Int64, strict=False))
    if dtype.is_float():
        return _from_floats(value)
    if isinstance(dtype, pl.Datetime | pl.Date):
        return value.cast(pl.Datetime("us")).cast(pl.Int64)
    if dtype == pl.String:
        return _from_text(value.str.strip_chars())
    raise TypeError(f"{dtype} is no time")


def parse_time(text: str) -> int:
    """One time as a person writes it on the command line, in microseconds.

    Raises:
        WrongUse: it is no time.
    """
    found = pl.DataFrame({"time": [text]}).select(time_microseconds("time", pl.String()))["time"][0]
    if found is None:
        raise WrongUse(f"{text!r} is no time: give seconds since 1970 or ISO 8601, such as 2024-01-31T12:00:00Z")
    return int(found)


def format_time(microseconds: int) -> str:
    """Microseconds as ISO 8601 in UTC; the shortest form that `parse_time` takes back to the same number."""
    text: str = pl.Series([microseconds]).cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%S%.f")[0]
    return text + "Z"


def _from_integers(seconds: pl.Expr) -> pl.Expr:
    valid = seconds.is_between(FIRST_SECOND, LAST_SECOND)
    return pl.when(valid).then(seconds * MICROSECONDS)


def _from_floats(seconds: pl.Expr) -> pl.Expr:
    valid = seconds.is_finite() & seconds.is_between(FIRST_SECOND, LAST_SECOND + 1, closed="left")
    return pl.when(valid).then((seconds.cast(pl.Float64) * MICROSECONDS).round().cast(pl.Int64, strict=False))


def _from_text(text: pl.Expr) -> pl.Expr:
    integers = _from_integers(text.cast(pl.Int64, strict=False))
    floats = _from_floats(text.cast(pl.Float64, strict=False))
    return pl.coalesce(integers, floats, _from_iso(text))


def _from_iso(text: pl.Expr) -> pl.Expr:
    day_only = text.str.contains(r"^\d{4}-\d{2}-\d{2}$")
    text = pl.when(day_only).then(text + "T00:00").otherwise(text.str.replace(r"^(\S{10}) ", "${1}T"))
    text = text.str.replace(r"[Zz]$", "+00:00")
    parsed = [text.str.strptime(pl.Datetime("us"), form, strict=False, exact=True) for form in _ISO_FORMATS]
    return pl.coalesce(*(value.dt.replace_time_zone(None).cast(pl.Int64) for value in parsed))
