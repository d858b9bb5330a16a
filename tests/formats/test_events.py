import csv
import gzip
import io

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from formats.errors import WorkFailed, WrongUse
from formats.events import EventSource, IdCodes, find_files, read_events

HEADER = "user_id,item_id,domain,timestamp"


def read(path, columns=None, domain=None):
    return read_events(EventSource(path, domain), columns or {}, IdCodes())


def good(rows):
    return list(rows.good.with_columns(pl.col("user_id", "item_id", "domain", "event").cast(pl.String)).iter_rows())


def bad(rows):
    return [(line, problem, detail) for line, _, problem, detail in rows.bad.iter_rows()]


def write(path, *lines):
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())
    return path


EXPECTED = [("u1", "i1", "Books", 7_000_000, "interaction"), ("u2", "i2", "Toys", 8_500_000, "interaction")]


@pytest.mark.parametrize("name", ["e.csv", "e.tsv", "e.csv.gz", "e.tsv.gz", "e.parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    frame = pl.DataFrame(
        {"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "domain": ["Books", "Toys"], "timestamp": [7.0, 8.5]}
    )
    if name == "e.parquet":
        frame.write_parquet(path)
    else:
        text = frame.write_csv(separator="\t" if ".tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    rows = read(path)
    assert good(rows) == EXPECTED
    assert rows.bad.is_empty()


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    path = tmp_path / "e.csv"
    path.write_bytes(f"\ufeff{HEADER}\r\nu1,i1,Books,7\r\n".encode())
    assert good(read(path)) == EXPECTED[:1]


def test_columns_are_mapped_extra_ones_ignored_and_the_order_is_free(tmp_path):
    path = write(tmp_path / "e.csv", "price,asin,domain,when,reviewerID", "3,i1,Books,7,u1")
    columns = {"user_id": "reviewerID", "item_id": "asin", "timestamp": "when"}
    assert good(read(path, columns)) == EXPECTED[:1]


def test_a_constant_domain_needs_no_column_and_wins_over_one(tmp_path):
    without = write(tmp_path / "a.csv", "user_id,item_id,timestamp", "u1,i1,7")
    with_one = write(tmp_path / "b.csv", HEADER, "u1,i1,Toys,7")
    assert good(read(without, domain="Books")) == good(read(with_one, domain="Books")) == EXPECTED[:1]


def test_a_missing_event_is_an_interaction_and_an_unknown_word_is_another_kind(tmp_path):
    path = write(tmp_path / "e.csv", f"event,{HEADER}", ",u,i,d,1", "click,u,i,d,1", "purchase,u,i,d,1")
    assert [row[-1] for row in good(read(path))] == ["interaction", "click", "other"]


def test_every_bad_row_has_its_line_and_first_reason_and_no_good_row_is_lost(tmp_path):
    path = write(
        tmp_path / "e.csv",
        f"{HEADER},note",
        "u1,i1,Books,7,",
        ",i,d,1,",
        'u,"",d,1,',
        "u,i,,x,",
        "u,i,d,x,",
        "u,i,d,",
        "u,i,d,1,n,more",
        "",
        '"u"x,i,d,1,',
        "u2,i2,Toys,8.5,last",
    )
    with path.open("ab") as stream:
        stream.write(b"u,\xff,d,1,\n")
    rows = read(path)
    assert good(rows) == EXPECTED
    assert bad(rows) == [
        (3, "missing user_id", ""),
        (4, "missing item_id", ""),
        (5, "missing domain", ""),
        (6, "bad time", "'x'"),
        (7, "wrong number of fields", "4 instead of 5"),
        (8, "wrong number of fields", "6 instead of 5"),
        (10, "broken quotes", ""),
        (12, "not UTF-8", ""),
    ]


def test_a_bad_row_keeps_its_domain_where_it_can_be_read(tmp_path):
    rows = read(write(tmp_path / "e.csv", HEADER, "u,i,Books,x", "u,i,Books"))
    assert rows.bad["domain"].to_list() == ["Books", None]


def test_a_row_that_ends_before_an_optional_last_column_is_bad(tmp_path):
    rows = read(write(tmp_path / "e.csv", f"{HEADER},event", "u1,i1,Books,7,", "u,i,d,1"))
    assert good(rows) == EXPECTED[:1]
    assert bad(rows) == [(3, "wrong number of fields", "4 instead of 5")]


def test_a_quote_that_is_never_closed_costs_one_row(tmp_path):
    rows = read(write(tmp_path / "e.csv", HEADER, '"u,i,d,1', "u1,i1,Books,7", "u2,i2,Toys,8.5"))
    assert good(rows) == EXPECTED
    assert bad(rows) == [(2, "broken quotes", "")]


def test_lines_are_counted_through_quoted_line_breaks(tmp_path):
    rows = read(write(tmp_path / "e.csv", HEADER, '"u\n1",i,d,1', "u,i,d,x"))
    assert good(rows) == [("u\n1", "i", "d", 1_000_000, "interaction")]
    assert bad(rows) == [(4, "bad time", "'x'")]


def test_bad_rows_of_parquet_are_counted_from_one(tmp_path):
    frame = pl.DataFrame(
        {"user_id": ["u1", None], "item_id": ["i1", "i"], "domain": ["Books", "d"], "timestamp": [7, 7]}
    )
    frame.write_parquet(tmp_path / "e.parquet")
    rows = read(tmp_path / "e.parquet")
    assert good(rows) == EXPECTED[:1]
    assert bad(rows) == [(2, "missing user_id", "")]


def test_numbers_are_ids_in_parquet_too(tmp_path):
    frame = pl.DataFrame({"user_id": [1], "item_id": [2], "domain": ["d"], "timestamp": [7]})
    frame.write_parquet(tmp_path / "e.parquet")
    assert good(read(tmp_path / "e.parquet")) == [("1", "2", "d", 7_000_000, "interaction")]


cells = st.text(st.sampled_from('ab ,"\n5.é'), max_size=4)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells, cells, st.sampled_from(["7", "8.5", " 9", "+3", '"7"', "x", "1970-01-02"]))))
def test_reading_fast_and_reading_line_by_line_agree(tmp_path_factory, table):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEADER.split(","), *table])
    folder = tmp_path_factory.mktemp("events")
    fast = write(folder / "fast.csv", text.getvalue().removesuffix("\n"))
    # The added row with too many fields makes Polars refuse the file, so that it is read line by line.
    slow = write(folder / "slow.csv", text.getvalue() + "1,2,3,4,5,6")
    assert good(read(fast)) == good(read(slow))
    assert bad(read(fast)) == bad(read(slow))[:-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"", "empty"),
        ("e.csv", b"\n\n", "empty"),
        ("e.csv.gz", gzip.compress(b""), "empty"),
        ("e.csv", b"user_id,item_id,timestamp\nu,i,1\n", r"no column domain in the header \(user_id, item_id"),
        ("e.csv", b"user_id,user_id,item_id,domain,timestamp\nu,u,i,d,1\n", "user_id appears 2 times"),
        ("e.csv.gz", gzip.compress(f"{HEADER}\nu,i,d,1\n".encode() * 9)[:-5], "damaged or cut short"),
        ("e.csv.gz", gzip.compress(f"{HEADER}\nu,i,d,1\n".encode())[:15], "damaged or cut short"),
        ("e.csv", b"\xff\xfe\n", "no header line"),
        ("e.parquet", b"PAR1 no more", "not a Parquet file, or damaged"),
        ("e.parquet", b"", "not a Parquet file, or damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WorkFailed, match=rf"{name}.*{message}"):
        read(tmp_path / name)


def test_a_large_gzip_that_is_cut_short_is_refused_whichever_way_it_is_read(tmp_path):
    lines = [f"u{number},i{number * 7919 % 10007},d,{number}" for number in range(100_000)]
    whole = gzip.compress("\n".join([HEADER, *lines]).encode())
    broken = gzip.compress("\n".join([HEADER, "u,i,d,x", *lines]).encode())
    for packed in (whole, broken):
        (tmp_path / "e.csv.gz").write_bytes(packed[: len(packed) // 2])
        with pytest.raises(WorkFailed, match=r"e\.csv\.gz: damaged or cut short"):
            read(tmp_path / "e.csv.gz")


def test_a_parquet_column_that_cannot_hold_times_is_named(tmp_path):
    pl.DataFrame({"user_id": ["u"], "item_id": ["i"], "domain": ["d"], "timestamp": [True]}).write_parquet(
        tmp_path / "e.parquet"
    )
    with pytest.raises(WorkFailed, match="column timestamp: Boolean is no time"):
        read(tmp_path / "e.parquet")


def test_a_mapped_column_must_exist_even_if_it_is_optional(tmp_path):
    path = write(tmp_path / "e.csv", HEADER, "u,i,d,1")
    with pytest.raises(WorkFailed, match="no column kind"):
        read(path, {"event": "kind"})


def test_an_unknown_ending_is_wrong_use(tmp_path):
    with pytest.raises(WrongUse, match="unknown kind of file"):
        read(write(tmp_path / "e.xlsx", HEADER))


def test_globs_name_files_in_order_and_paths_may_look_like_globs(tmp_path):
    for name in ("b.csv", "a.csv", "odd[1].csv"):
        write(tmp_path / name, HEADER)
    assert [path.name for path in find_files([f"{tmp_path}/?.csv"])] == ["a.csv", "b.csv"]
    assert [path.name for path in find_files([f"{tmp_path}/odd[1].csv"])] == ["odd[1].csv"]


def test_names_without_a_file_folders_and_files_named_twice_are_wrong_use(tmp_path):
    path = write(tmp_path / "a.csv", HEADER)
    with pytest.raises(WrongUse, match="no such file"):
        find_files([f"{tmp_path}/*.tsv"])
    with pytest.raises(WrongUse, match="is a directory"):
        find_files([str(tmp_path)])
    with pytest.raises(WrongUse, match="named twice"):
        find_files([str(path), f"{tmp_path}/*.csv"])
