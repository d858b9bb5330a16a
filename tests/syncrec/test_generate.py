"""`syncrec generate`: what it prints and writes, what it refuses, and that nothing half is left behind."""

import gzip
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from syncrec.cli import main
from training.generate import bayes_nll, generate
from training.truth import DomainTruth, World, five_domains

KINDS = ["events.csv", "events.csv.gz", "events.parquet"]


def made(out, *arguments):
    assert main(["generate", "--out", str(out), "--users", "40", *map(str, arguments)]) == 0
    return out


def read(path):
    """The rows of a file, by means of its kind."""
    if path.suffix == ".parquet":
        return pl.read_parquet(path)
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as stream:
        return pl.read_csv(stream.read())


def refusal(capsys, folder, *arguments):
    """Exit code and the one line on stderr; nothing may have appeared in the folder."""
    before = sorted(folder.iterdir())
    code = main(["generate", *map(str, arguments)])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert sorted(folder.iterdir()) == before
    return code, printed.err


@pytest.mark.parametrize("name", KINDS)
def test_all_kinds_of_files_hold_the_same_events(tmp_path, name):
    expected = generate(five_domains(40, seed=3)).table(five_domains(40, seed=3)).collect()
    assert read(made(tmp_path / name, "--seed", 3)).equals(expected)
    assert sorted(file.name for file in tmp_path.iterdir()) == [name, f"{name}.truth.json"]


@pytest.mark.parametrize("name", KINDS)
def test_the_same_seed_gives_the_same_bytes(tmp_path, name):
    for folder in ("one", "other"):
        made(tmp_path / folder / name, "--preset", "many-domains", "--domains", 7)
    for file in (name, f"{name}.truth.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_the_table_the_truth_file_and_the_json_say_the_same(tmp_path, capsys):
    out = made(tmp_path / "e.csv", "--events", 3, 9, "--json", tmp_path / "result.json")
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    truth = json.loads((tmp_path / "e.csv.truth.json").read_text())
    assert truth == json.loads((tmp_path / "result.json").read_text())

    given = truth["world"]
    domains = tuple(DomainTruth(**domain) for domain in given["domains"])
    world = World(**given | {"domains": domains, "events": tuple(given["events"])})
    assert world.events == (3, 9)
    assert [domain["bayes_nll"] for domain in truth["domains"]] == bayes_nll(world, generate(world)).tolist()
    counts = dict(read(out)["domain"].value_counts().rows())
    assert {domain["name"]: domain["events"] for domain in truth["domains"]} == counts
    assert {domain["uniform_nll"] for domain in truth["domains"]} == {math.log(60)}

    assert printed[0][:7] == ["domain", "kind", "rho", "share", "m", "items", "events"]
    sparse = truth["domains"][0]
    row = ["related-sparse", "related", "0.95", "0.070", "0.00", "60", str(sparse["events"])]
    assert printed[1] == [*row, f"{sparse['bayes_nll']:.4f}", "4.0943"]
    assert printed[-1] == ["wrote", str(out), "and", f"{out}.truth.json"]


def test_json_on_standard_output_stands_alone(tmp_path, capsys):
    made(tmp_path / "e.csv", "--json", "-")
    assert json.loads(capsys.readouterr().out)["schema_version"] == 1


def test_a_domain_without_events_has_no_floor(tmp_path, capsys):
    made(tmp_path / "e.csv", "--users", 1, "--events", 1, 1)
    domains = json.loads((tmp_path / "e.csv.truth.json").read_text())["domains"]
    assert sorted(domain["events"] for domain in domains) == [0, 0, 0, 0, 1]
    assert [domain["bayes_nll"] is None for domain in domains] == [domain["events"] == 0 for domain in domains]
    assert [line.split()[-2] for line in capsys.readouterr().out.splitlines()[1:6]].count("-") == 4


@pytest.mark.parametrize("preset", ["all-related", "all-unrelated", "many-domains"])
@pytest.mark.parametrize(("arguments", "domains"), [([], 5), (["--domains", "3"], 3)])
def test_presets_with_any_number_of_domains(tmp_path, preset, arguments, domains):
    out = made(tmp_path / "e.csv", "--preset", preset, *arguments)
    assert read(out)["domain"].n_unique() == domains


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "{folder}/e.json"], "unknown kind of file; known: .csv, .csv.gz, .parquet"),
        (["--out", "{folder}/e.csv", "--domains", "3"], "--domains belongs to the presets"),
        (["--out", "{folder}/e.csv", "--preset", "many-domains", "--domains", "0"], "--domains is at least 1"),
        (["--out", "{folder}/e.csv", "--users", "0"], "users is at least 1"),
        (["--out", "{folder}/e.csv", "--events", "9", "3"], "the fewest and the most"),
        (["--out", "{folder}/e.csv", "--seed", "-1"], "seed is at least 0"),
        (["--out", "{folder}/e.csv", "--json", "{folder}/none/result.json"], "no such folder"),
    ],
)
def test_wrong_use_is_refused_with_one_line(tmp_path, capsys, arguments, message):
    code, line = refusal(capsys, tmp_path, *[word.format(folder=tmp_path) for word in arguments])
    assert code == 2
    assert message in line


@pytest.mark.parametrize("taken", ["e.csv", "e.csv.truth.json"])
@pytest.mark.parametrize("kind", ["file", "folder", "broken link"])
def test_what_exists_is_refused_and_left_alone(tmp_path, capsys, taken, kind):
    if kind == "file":
        (tmp_path / taken).write_text("precious")
    elif kind == "folder":
        (tmp_path / taken).mkdir()
    else:
        (tmp_path / taken).symlink_to(tmp_path / "nowhere")
    code, line = refusal(capsys, tmp_path, "--out", tmp_path / "e.csv")
    assert code == 2
    assert f"{tmp_path / taken} exists already" in line
    assert kind != "file" or (tmp_path / taken).read_text() == "precious"


def test_what_appears_meanwhile_is_not_overwritten(tmp_path, capsys, monkeypatch):
    def late(world, _):
        (tmp_path / "e.csv").write_text("precious")
        return generate(world)

    monkeypatch.setattr("syncrec.generate.generate", late)
    assert main(["generate", "--out", str(tmp_path / "e.csv"), "--users", "5"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("e.csv", "precious")]


def test_an_output_that_cannot_be_made_fails_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("syncrec.generate.generate", lambda *_: pytest.fail("too late"))
    (tmp_path / "file").write_text("")
    code, line = refusal(capsys, tmp_path, "--out", tmp_path / "file" / "e.csv")
    assert code == 1
    assert "cannot write" in line


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("limit", [100, 5_000])
def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path, name, limit):
    # A limit on the size of a file fails like a full disk does, in the middle of a write.
    done = subprocess.run(
        [sys.executable, "-m", "syncrec", "generate", "--out", str(tmp_path / name), "--users", "500"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"syncrec generate: cannot write {tmp_path / name}: ")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    command = [sys.executable, "-m", "syncrec", "generate", "--out", str(tmp_path / "e.csv"), "--users", "3000000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(1200):
            if list(tmp_path.iterdir()):
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert (out, err) == ("", "syncrec generate: stopped\n")
    assert list(tmp_path.iterdir()) == []
