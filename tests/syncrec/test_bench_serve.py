"""`syncrec bench serve`: the load generator counts right, peers answer as ours does, and nothing is judged in a noisy machine."""

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, replace

import numpy as np
import pytest

from formats.errors import WorkFailed
from syncrec.cli import main
from syncrec.serving_bench import cpu
from syncrec.serving_bench.load import Load, Measured, measure, request_bytes
from syncrec.serving_bench.rounds import QUIET_CORES, Round, compared, rate_of_plain, summed_up
from syncrec.serving_bench.same_answers import check_same_answers
from syncrec.serving_bench.servers import Server

LOAD = Load(port=0, users=3, key="k", concurrency=4, rate=0, warm_s=0.05, measure_s=0.4, server=[], helpers=[], seed=1)


@asynccontextmanager
async def answering(answer, wait_s=0.0):
    """A server on a free port that gives `answer(number)` to its requests, from 0, in two pieces; yields port and bodies."""
    bodies, handlers = [], set()

    async def serve(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            bodies.append(json.loads(await reader.readexactly(length)))
            whole = answer(len(bodies) - 1)
            await asyncio.sleep(wait_s)
            if whole is None:
                break
            writer.write(whole[:20])
            await asyncio.sleep(0)
            writer.write(whole[20:])
        writer.close()

    async def handle(reader, writer):
        handlers.add(asyncio.current_task())
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            writer.close()
        finally:
            handlers.discard(asyncio.current_task())

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], bodies
    finally:
        server.close()
        for handler in handlers.copy():
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)


def response(status, body=b"{}"):
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


async def test_a_closed_loop_keeps_one_request_under_way_per_connection():
    async with answering(lambda _: response(200), wait_s=0.02) as (port, bodies):
        measured = await measure(replace(LOAD, port=port))
    # Each of 4 connections is answered after 20 ms at the earliest.
    assert 0 < len(measured.latencies_ms) <= 4 * (0.4 / 0.02 + 1)
    assert min(measured.latencies_ms) >= 19
    assert measured.errors == {}
    assert {body["user_id"] for body in bodies} == {"u0", "u1", "u2"}


async def test_what_is_no_answer_is_an_error_and_no_latency():
    async with answering(lambda number: response(503 if number % 2 else 200), wait_s=0.005) as (port, bodies):
        measured = await measure(replace(LOAD, port=port, warm_s=0))
    assert set(measured.errors) == {"503"}
    assert len(measured.latencies_ms) + measured.errors["503"] <= len(bodies)
    assert abs(len(measured.latencies_ms) - measured.errors["503"]) <= 5


async def test_a_connection_that_the_server_ends_is_an_error():
    async with answering(lambda number: None if number == 2 else response(200), wait_s=0.01) as (port, _):
        measured = await measure(replace(LOAD, port=port, warm_s=0))
    assert measured.errors == {"closed": 1}
    assert measured.latencies_ms


async def test_the_latency_of_an_open_loop_counts_from_when_the_request_was_due():
    # One connection, 50 ms an answer, 100 requests a second: the last of some 40 waits for all before it, 2 s in all.
    async with answering(lambda _: response(200), wait_s=0.05) as (port, bodies):
        measured = await measure(replace(LOAD, port=port, concurrency=1, rate=100, warm_s=0))
    assert len(measured.latencies_ms) == len(bodies) > 15
    assert np.median(measured.latencies_ms) > 3 * 50
    assert max(measured.latencies_ms) > 1000 * (0.05 * len(bodies) - 0.4)


async def test_an_open_loop_sends_at_its_rate_however_long_answers_take():
    async with answering(lambda _: response(200), wait_s=0.2) as (port, bodies):
        await measure(replace(LOAD, port=port, concurrency=256, rate=500, warm_s=0, measure_s=1))
    assert abs(len(bodies) - 500) < 5 * 500**0.5  # Poisson


def test_processor_time_is_the_server_s_own():
    with subprocess.Popen([sys.executable, "-c", "import sys, time\nwhile time.process_time() < 0.3: pass\nsys.stdin.read()"],
                          stdin=subprocess.PIPE) as busy:  # fmt: skip
        deadline = time.monotonic() + 30
        while cpu.cpu_seconds([busy.pid]) < 0.25 and time.monotonic() < deadline:  # ticks are 10 ms
            time.sleep(0.01)
        assert 0.25 <= cpu.cpu_seconds([busy.pid]) < 1
        assert busy.pid in cpu.with_descendants(os.getpid())
        busy.stdin.close()


def one(server, load="c=64", requests_per_s=100.0, others_cores=0.0, **others):
    figures = {"p50_ms": 1.0, "p95_ms": 2.0, "p99_ms": 3.0, "errors": {}, "cpu_us": 10.0, "generator_cpu_us": 1.0}
    return Round(
        server=server, load=load, requests_per_s=requests_per_s, others_cores=others_cores, **(figures | others)
    )


def test_ours_is_compared_with_its_neighbour_in_time():
    rounds = [one("syncrec", requests_per_s=300.0), one("plain", requests_per_s=100.0),
              one("syncrec", requests_per_s=100.0), one("plain", requests_per_s=50.0),
              one("syncrec", requests_per_s=500.0), one("plain", requests_per_s=100.0)]  # fmt: skip
    (found,) = compared(rounds)
    assert found.requests_per_s == (3.0, 2.0, 5.0)
    assert found.is_quiet
    assert rate_of_plain(rounds, 0.5) == 50.0


@pytest.mark.parametrize(("others", "quiet"), [(QUIET_CORES, True), (QUIET_CORES + 0.01, False)])
def test_speed_is_not_judged_while_others_use_the_machine(others, quiet):
    (found,) = compared([one("syncrec", others_cores=others), one("plain", others_cores=others)])
    assert found.is_quiet is quiet


def test_medians_are_per_server_and_load_and_errors_add_up():
    rounds = [one("syncrec", p99_ms=value, errors={"503": 1}) for value in (1.0, 9.0, 2.0)] + [one("plain", load="c=1")]
    ours, plain = summed_up(rounds)
    assert (ours.p99_ms, ours.errors, plain.load) == (2.0, {"503": 3}, "c=1")


async def test_servers_that_answer_otherwise_are_not_compared():
    def answer(item):
        return response(200, json.dumps({"source": "model", "domains": {"Books": [{"item_id": item}]}}).encode())

    async with (
        answering(lambda _: answer("a")) as (port, _),
        answering(lambda number: answer("b" if number == 7 else "a")) as (other, _),
    ):
        servers = [Server("syncrec", port, []), Server("plain", other, [])]
        with pytest.raises(WorkFailed, match="plain and syncrec answer otherwise for u7: Books"):
            await asyncio.to_thread(check_same_answers, servers, "k", 100)
        assert 0 < await asyncio.to_thread(check_same_answers, servers, "k", 100) < 5


def test_a_request_is_whole_and_carries_the_key():
    head, _, body = request_bytes("u1", "secret").partition(b"\r\n\r\n")
    assert json.loads(body) == {"user_id": "u1"}
    assert b"content-length: %d" % len(body) in head
    assert b"x-api-key: secret" in head


def test_a_bundle_nobody_trained_is_loaded_and_answers_as_recorded(tmp_path, tiny_config):
    from service.ranking.ranker import load_bundle
    from service.settings import Settings
    from syncrec.serving_bench.synthetic_bundle import WEIGHTS, write_synthetic_bundle

    bundle = write_synthetic_bundle(tmp_path, replace(tiny_config, mixture=True), items=400)
    catalog = load_bundle(bundle, Settings(models_dir=tmp_path, providers="cpu")).catalog
    assert (catalog.items, len(catalog.domains), len(catalog.titles)) == (400, 4, 400)
    # The graph has every member: one without a weight is left out, and would make it cheaper than what is trained.
    assert list(bundle.manifest.mixture.values()) == [WEIGHTS] * 4
    assert min(WEIGHTS.values()) > 0


def test_the_bench_measures_ours_and_plain_over_a_bundle(tmp_path, tiny_mixed_bundle, capsys):
    file = tmp_path / "serve.json"
    words = ["--quick", "--models", str(tiny_mixed_bundle.path.parent), "--users", "20", "--json", str(file)]
    assert main(["bench", "serve", *words]) == 0
    (bundle,) = json.loads(file.read_text())["bundles"]
    assert {(one["load"], one["server"]) for one in bundle["medians"]} == {
        (load, server) for load in ("c=1", "c=64") for server in ("syncrec", "plain")
    }
    assert all(one["requests_per_s"] > 0 and one["errors"] == {} for one in bundle["rounds"])
    assert all(50 < one["cpu_us"] < 1e6 for one in bundle["medians"])
    printed = capsys.readouterr()
    assert "mosec is not measured" in printed.err
    assert "c=64, syncrec / plain: CPU per request" in printed.out


@pytest.mark.parametrize(
    "words", [["--items", "3"], ["--users", "0"], ["--models", "m", "--preset", "paper"], ["--peer-python", "/nowhere"]]
)
def test_what_cannot_be_meant_is_wrong_use(words, capsys):
    assert main(["bench", "serve", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_loads_and_results_cross_the_process_boundary_whole():
    assert Load(**json.loads(json.dumps(asdict(LOAD)))) == LOAD
    assert Measured(**json.loads(json.dumps(asdict(Measured())))) == Measured()
