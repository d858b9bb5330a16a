"""`syncrec prepare`: what it prints, what it refuses, and that a refusal leaves nothing behind."""

import gzip
import json
import os
import resource
import subprocess
import sys

import polars as pl
import pytest

from syncrec.cli import main
from training.dataset import open_dataset

HEADER = "user_id,item_id,domain,timestamp"
ROWS = [
    f"u{user},i{(user + item) % 7},{'Books' if item % 2 else 'Toys'},{item * 10}"
    for user in range(9)
    for item in range(6)
]
TEXT = "\n".join([HEADER, *ROWS]) + "\n"


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "in" / "events.csv"
    path.parent.mkdir()
    path.write_text(TEXT)
    return path


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "dataset"


def refusal(capsys, out, *arguments):
    """Exit code and the one line on stderr; nothing may be left where the dataset was to be."""
    code = main(["prepare", *map(str, arguments), "--out", str(out)])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert list(out.parent.iterdir()) == []
    return code, printed.err


def test_it_prints_read_kept_and_dropped_and_writes_the_same_as_json(events, out, tmp_path, capsys):
    with events.open("a") as stream:
        stream.write("u0,i0,Toys,0\nu1,i9,Books,never\n")
    arguments = ["--max-bad", "0.1", "--json", str(tmp_path / "result.json")]
    assert main(["prepare", str(events), "--out", str(out), *arguments]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    table = [line.split() for line in printed.out.splitlines()]
    assert table[0] == ["domain", "read", "kept", "bad", "time", "repeat"]
    assert table[1] == ["Books", "28", "27", "1", "0"]
    assert table[2] == ["Toys", "28", "27", "0", "1"]
    assert table[3] == ["all", "56", "54", "1", "1"]
    assert "events.csv:57: bad time 'never'" in printed.out
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["malformed"] == {"rows": 1, "first": [f"{events}:57: bad time 'never'"]}
    assert result["fingerprint"] == open_dataset(out).fingerprint


def test_files_of_one_domain_each_mapped_columns_and_given_times_are_understood(tmp_path, out):
    for name in ("books", "toys"):
        (tmp_path / f"{name}.tsv").write_text("who\twhat\ttimestamp\nu1\ti1\t1\nu1\ti2\t2\nu1\ti3\t2024-06-01\n")
    arguments = ["--domain", f"Books={tmp_path}/books.tsv", "--domain", f"Toys={tmp_path}/toys.tsv"]
    arguments += ["--columns", "user_id=who,item_id=what"]
    arguments += ["--validation-from", "2024-01-01", "--test-from", "2024-06-01T00:00:00Z"]
    assert main(["prepare", *arguments, "--out", str(out)]) == 0
    dataset = open_dataset(out)
    assert dataset.domains == ("Books", "Toys")
    assert dataset.manifest.split.test_from == "2024-06-01T00:00:00Z"
    assert [dataset.train.events, dataset.validation.events, dataset.test.events] == [4, 0, 2]


def test_the_dataset_names_no_path_of_this_machine(events, out, tmp_path):
    assert main(["prepare", str(events), "--out", str(out)]) == 0
    assert str(tmp_path).encode() not in b"".join(f.read_bytes() for f in out.rglob("*") if f.is_file())


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["prepare", "--help"])
    assert stop.value.code == 0
    assert "syncrec prepare events.csv.gz --out dataset" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("e.csv", b"", "empty"),
        ("e.csv", f"{HEADER}\n".encode(), "no rows below the header"),
        ("e.csv", b"user_id,item_id,timestamp\nu,i,1\n", "no column domain in the header"),
        ("e.csv.gz", gzip.compress(TEXT.encode())[:-9], "damaged or cut short"),
        ("e.csv", TEXT.replace("u8,", ",").encode(), "6 of 54 rows are malformed"),
        ("e.csv", TEXT.encode("utf-16"), "no header line"),
        ("e.parquet", b"no parquet", "not a Parquet file"),
    ],
)
def test_a_file_that_cannot_be_used_fails_with_one_line(tmp_path, out, capsys, name, content, message):
    (tmp_path / name).write_bytes(content)
    code, line = refusal(capsys, out, tmp_path / name)
    assert code == 1
    assert name in line
    assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}"], "is a directory"),
        (["{folder}/none.csv"], "no such file"),
        ([], "no events"),
        (["{events}", "--domain", "Books"], "write NAME=FILE"),
        (["{events}", "{events}"], "named twice"),
        (["{events}", "--columns", "user=reviewerID"], "write OURS=THEIRS"),
        (["{events}", "--events", "purchase"], "purchase"),
        (["{events}", "--test-from", "soon"], "is no time"),
        (["{events}", "--test-from", "2024-01-01"], "go together"),
        (["{events}", "--json", "{folder}/none/result.json"], "no such folder"),
    ],
)
def test_wrong_use_is_refused_with_one_line(events, out, capsys, arguments, message):
    words = [word.format(folder=events.parent, events=events) for word in arguments]
    code, line = refusal(capsys, out, *words)
    assert code == 2
    assert message in line


def test_an_output_folder_that_exists_is_refused_and_left_alone(events, out, capsys):
    out.mkdir()
    (out / "mine").write_text("precious")
    assert main(["prepare", str(events), "--out", str(out)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [(file.name, file.read_text()) for file in out.iterdir()] == [("mine", "precious")]


def test_an_event_file_that_may_not_be_read_is_named_as_such(events, out, capsys, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied", str(events))

    monkeypatch.setattr(type(events), "open", refuse)
    code, line = refusal(capsys, out, events)
    assert code == 1
    assert f"{events}: Permission denied" in line


@pytest.mark.parametrize("limit", [100, 5_000, 100_000])
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, out, limit):
    frame = pl.DataFrame({"user_id": range(30_000), "item_id": range(30_000), "domain": "D", "timestamp": 7})
    frame.vstack(frame.with_columns(pl.col("item_id") + 1)).write_csv(tmp_path / "e.csv")
    command = [sys.executable, "-m", "syncrec", "prepare", str(tmp_path / "e.csv"), "--out", str(out)]
    command += ["--validation-from", "8", "--test-from", "9"]
    # A limit on the size of a file fails like a full disk does, in the middle of a write.
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"syncrec prepare: cannot write {out}: File too large"]
    assert list(out.parent.iterdir()) == []


def test_an_output_folder_that_cannot_be_made_fails_with_one_line(events, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["prepare", str(events), "--out", f"{tmp_path}/file/dataset"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
