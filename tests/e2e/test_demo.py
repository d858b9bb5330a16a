"""`syncrec demo`, as a newcomer runs it: the real sample, training, export, Redis, HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from syncrec.demo_answer import Household, choose_household
from syncrec.demo_check import differences

SAMPLE = Path(__file__).parents[2] / "syncrec" / "sample"
ROOT = Path(__file__).parents[2]


def start(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "syncrec", "demo", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder and output of a demo with --check, run from another folder than the checkout."""
    work = tmp_path_factory.mktemp("demo") / "work"
    process = start("--check", "--work", str(work), cwd=work.parent)
    out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out + err
    return work, out


def test_the_demo_checks_its_own_answer_and_shows_every_step(finished):
    work, out = finished
    assert "check: the answer is right" in out
    for command in ("prepare", "train", "evaluate", "export", "load-histories", "serve"):
        assert f"syncrec {command}" in out
    assert "negative transfer" in out
    assert "bought last" in out
    assert {path.name for path in work.iterdir()} >= {"dataset", "run", "models", "redis"}


def test_the_demo_leaves_no_process_behind(finished):
    work, _ = finished
    running = [
        command
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if (command := read_or_empty(entry)) and str(work) in command
    ]
    assert running == []


def read_or_empty(entry: Path) -> str:
    try:
        return entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # the process ended meanwhile
        return ""


@pytest.fixture(scope="module")
def right(finished) -> tuple[Household, dict, Path, Path]:
    """The household, the checkpoint's own answer in the service's form, the run and the models."""
    work, _ = finished
    household = choose_household(SAMPLE / "events.csv.gz", SAMPLE / "items.csv.gz")
    return household, right_answer(household, work), work / "run", work / "models"


def right_answer(household: Household, work: Path) -> dict:
    from formats.bundle import newest_bundle
    from training.cases import contexts
    from training.export import ask
    from training.run import open_trained
    from training.served_ranker import served_ranker

    trained = open_trained(work / "run")
    dataset = trained.dataset
    items = newest_bundle(work / "models").items()["item_id"].to_list()
    cases = contexts(dataset, "test")
    user = dataset.all_user_ids.to_list().index(household.user_id)
    history = cases.item_index[cases.user_offsets[user] : cases.user_offsets[user + 1]]
    served = served_ranker(trained)
    scores, index = ask(served, [history], [history[history > 0]], trained.run.config.max_history, dataset.items, 10)
    lists = {
        domain: [
            {"item_id": items[item - 1], "score": float(score), "rank": rank}
            for rank, (item, score) in enumerate(zip(index[0, place], scores[0, place], strict=True), start=1)
            if item
        ]
        for place, domain in enumerate(dataset.domains)
    }
    return {"source": "model", "domains": lists}


def test_the_check_accepts_what_the_checkpoint_says(right):
    assert differences(*right) == []


def broken(answer: dict, how) -> dict:
    copy = json.loads(json.dumps(answer))
    how(copy)
    return copy


def swap_items(answer):
    first, *_, last = answer["domains"]["Produce"]
    first["item_id"], last["item_id"] = last["item_id"], first["item_id"]


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        (lambda a: a.update(source="popularity"), "source"),
        (lambda a: a["domains"].pop("Deli"), "domains"),
        (lambda a: a["domains"]["Deli"][0].update(item_id="no such item"), "does not have"),
        (lambda a: a["domains"]["Deli"][0].update(item_id=a["domains"]["Meat"][0]["item_id"]), "does not have"),
        (lambda a: a["domains"]["Deli"][0].update(item_id=a["domains"]["Deli"][1]["item_id"]), "twice"),
        (lambda a: a["domains"]["Deli"][0].update(rank=2), "ranks"),
        (lambda a: a["domains"]["Deli"][3].update(score=99.0), "scores do not fall"),
        (lambda a: a["domains"]["Deli"].pop(), "items, not"),
        (swap_items, "checkpoint"),
        (lambda a: a["domains"]["Meat"][0].update(score=a["domains"]["Meat"][0]["score"] + 0.01), "checkpoint"),
    ],
)
def test_the_check_finds_a_wrong_answer(right, how, complaint):
    household, answer, run, models = right
    found = differences(household, broken(answer, how), run, models)
    assert found
    assert complaint in " ".join(found)


def test_the_check_finds_an_item_that_was_bought_before(right):
    household, answer, run, models = right
    bought = household.bought.filter(household.bought["domain"] == "Produce")["item_id"][0]
    changed = broken(answer, lambda a: a["domains"]["Produce"][0].update(item_id=bought))
    assert "bought before" in " ".join(differences(household, changed, run, models))


def test_a_taken_port_is_one_line_before_anything_is_trained(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("--port", str(port), cwd=tmp_path)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert err.count("\n") == 1
    assert "--port" in err


def test_a_work_folder_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    process = start("--check", "--work", str(tmp_path), cwd=tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children of a killed process on Linux only")
def test_a_killed_demo_takes_its_servers_along(finished, tmp_path):
    """Serving from the finished run's folder: the last two steps of the demo, killed without a chance to clean up."""
    work, _ = finished
    code = (
        "import sys, time; from pathlib import Path; from service.history.embedded import embedded_redis;"
        "from syncrec.demo import _server, _free_port\n"
        f"work = Path({str(work)!r}); log = Path({str(tmp_path / 'serve.log')!r}); port = _free_port(0)\n"
        "with embedded_redis(work) as redis, _server(work / 'models', redis, port, log) as server:\n"
        "    print(port, server.pid, flush=True); time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        port, _ = process.stdout.readline().split()
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while any(str(work) in read_or_empty(entry) for entry in Path("/proc").glob("[0-9]*/cmdline")):
        assert time.monotonic() < deadline, "Redis or the service outlived the demo"
        time.sleep(0.1)
