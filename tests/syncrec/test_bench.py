import json

import polars as pl
import pytest

from formats.errors import WorkFailed
from syncrec.cli import main
from training.bench_prepare import measure_prepare, repeat_events

HEADER = "user_id,item_id,domain,timestamp"


def test_events_are_repeated_under_distinct_users_to_exactly_so_many_rows(tmp_path):
    (tmp_path / "e.csv").write_text(f"{HEADER}\na,x,D,1\nb,y,E,2\n")
    repeat_events(tmp_path / "e.csv", 5, tmp_path / "repeated.csv")
    assert pl.read_csv(tmp_path / "repeated.csv").rows() == [
        ("a-0", "x", "D", 1),
        ("b-0", "y", "E", 2),
        ("a-1", "x", "D", 1),
        ("b-1", "y", "E", 2),
        ("a-2", "x", "D", 1),
    ]


def test_bench_prepare_measures_the_bundled_sample_in_a_process_of_its_own(tmp_path, capsys):
    assert main(["bench", "prepare", "--rows", "2000", "--json", str(tmp_path / "bench.json")]) == 0
    printed = capsys.readouterr().out
    result = json.loads((tmp_path / "bench.json").read_text())
    assert result["rows"] == 2000
    assert result["rows_per_second"] == result["rows"] / result["seconds"]
    # A Python with Polars loaded takes more than 20 MiB and, on 2,000 rows, less than 2 GiB: the unit is right.
    assert 20 * 1024**2 < result["peak_rss_bytes"] < 2 * 1024**3
    assert set(result["versions"]) == {"python", "polars", "numpy"}
    assert "rows per second" in printed


def test_a_command_that_fails_is_no_measurement(tmp_path):
    (tmp_path / "e.csv").write_text(f"{HEADER}\na,x,D,1\n")
    with pytest.raises(WorkFailed, match="the measured command failed: no such luck"):
        measure_prepare(tmp_path / "e.csv", 3, ["sh", "-c", "echo no such luck >&2; exit 3"])


@pytest.mark.parametrize("arguments", [["bench", "prepare", "--rows", "0"]])
def test_nothing_to_measure_is_wrong_use(arguments, capsys):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
