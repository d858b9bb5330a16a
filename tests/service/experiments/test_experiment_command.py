"""`syncrec experiment`: simulate, report and plan as a person uses them."""

import asyncio
import json

import msgspec
import pytest

from service.experiments.definition import read_experiment
from service.experiments.store import ExperimentStore
from service.redis_client.client import open_redis
from syncrec.cli import main

AT = ["--at", "2026-03-10T00:00:00+00:00"]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with the log of a simulated experiment; do not change it but by rolling up."""
    out = tmp_path_factory.mktemp("simulated")
    words = ["--lift", "0.5", "--users", "1500", "--days", "6", "--seed", "3"]
    assert main(["experiment", "simulate", "--out", str(out), *words]) == 0
    return out


def report(simulated, *words, key="simulated"):
    where = [] if "--redis" in words else ["--definition", str(simulated / "experiment.json")]
    return main(["experiment", "report", key, "--log", str(simulated), *where, *AT, *words])


def test_the_truth_lies_beside_the_log_and_the_report_has_it(simulated, tmp_path, capsys):
    truth = json.loads((simulated / "truth.json").read_text())
    assert (truth["lift"], truth["seed"], truth["fault"]) == (0.5, 3, None)
    assert report(simulated, "--format", "json", "--out", str(tmp_path / "report.json")) == 0
    assert capsys.readouterr().out == ""
    found = json.loads((tmp_path / "report.json").read_text())
    interval = found["comparisons"][0]["decisive"]["relative_interval"]
    assert interval["lower"] < 0.5 < interval["upper"]
    assert report(simulated) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("# simulated\n")
    assert found["sentence"] in printed


def test_what_simulate_prints_is_the_command_that_reports(tmp_path, capsys):
    out = str(tmp_path / "new")
    assert main(["experiment", "simulate", "--out", out, "--users", "50", "--days", "2", "--fault", "duplicates"]) == 0
    command = capsys.readouterr().out.splitlines()[1].split()
    assert main(command[1:]) == 0
    assert "came twice and were counted once" in capsys.readouterr().out


def test_definitions_come_from_redis_too(simulated, redis_url, capsys):
    async def put():
        async with open_redis(redis_url, timeout_ms=5000, connections=1) as client:
            store = ExperimentStore(client, clock=lambda: 1_772_409_600)
            experiment = read_experiment((simulated / "experiment.json").read_bytes())
            assert (await store.put(experiment)).started_at == "2026-03-02T00:00:00+00:00"
            await store.put(msgspec.structs.replace(experiment, key="draft", state="draft", salt=""))

    asyncio.run(put())
    assert report(simulated) == 0
    from_file = capsys.readouterr().out
    assert report(simulated, "--redis", redis_url) == 0
    assert capsys.readouterr().out == from_file
    assert report(simulated, "--redis", redis_url, key="nobody") == 2
    assert "there is no experiment 'nobody'; known: draft, simulated" in capsys.readouterr().err
    assert report(simulated, "--redis", redis_url, key="draft") == 1
    assert "'draft' has not begun" in capsys.readouterr().err


def test_a_plan_is_made_of_the_last_days(simulated, capsys):
    assert main(["experiment", "plan", "--log", str(simulated), "--days", "6", "--minimum-effect", "0.5", *AT]) == 0
    loud = capsys.readouterr().out
    # Those that lie two days back at least: 3 to 8 March, of which the last has nothing any more.
    assert "users of 2026-03-03 to 2026-03-08. To find a change of click-through by 50.0 %" in loud
    assert main(["experiment", "plan", "--log", str(simulated), "--days", "6", "--minimum-effect", "0.05", *AT]) == 0
    assert users_of(capsys.readouterr().out) > 20 * users_of(loud)
    assert main(["experiment", "plan", "--log", str(simulated), "--at", "2027-01-01"]) == 1
    assert "nothing is logged from 2026-12-17 to 2026-12-30" in capsys.readouterr().err


def users_of(printed):
    return int(printed.partition(" users are needed")[0].rpartition(" ")[2].replace(",", ""))


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["simulate", "--out", "{}", "--fault", "gremlins"], 2, "--fault gremlins: known are lost-exposures"),
        (["simulate", "--out", "{}"], 2, "is not empty"),
        (["simulate", "--out", "{}/new", "--users", "0"], 2, "--users 1 to 1,000,000"),
        (["report", "x", "--log", "{}/none", "--definition", "{}/x.json"], 1, "x.json: No such file"),
        (["report", "x", "--log", "{}/none", "--definition", "{}/bad.json"], 1, "bad.json: "),
        (["report", "other", "--log", "{}", "--definition", "{}/experiment.json"], 2, "known: simulated"),
        (["report", "simulated", "--log", "{}/none", "--definition", "{}/experiment.json"], 2, "none: no such folder"),
        (["plan", "--log", "{}", "--power", "1"], 2, "--power is between 0 and 1"),
        (["plan", "--log", "{}", "--minimum-effect", "0"], 2, "--minimum-effect is above 0"),
        (["plan", "--log", "{}/none"], 2, "none: no such folder"),
        (["report", "x", "--log", "{}", "--redis", "redis://127.0.0.1:1/0"], 1, "Redis fails"),
    ],
)
def test_what_cannot_be_done_is_one_line(simulated, words, code, says, capsys):
    (simulated / "bad.json").write_text('{"key": 3}')
    assert main(["experiment", *(word.format(simulated) for word in words)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert captured.err.count("\n") == 1
