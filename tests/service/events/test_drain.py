"""Drain: every row ends on disk under its day, whoever is killed whenever; duplicates at worst."""

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest
from redis.asyncio import Redis

from formats.errors import WorkFailed
from service.events.drain import GROUP, Drain, DrainOptions
from service.events.erased_files import erase_from_disk
from service.events.erasure import ERASED_USERS, erased_users, forget_marks, mark_erased
from service.events.files import MANY_PARTS, days, parts
from service.events.served import encode
from service.events.stream import STREAM, EventLog
from service.experiments.rollup import RollUpOptions, roll_up
from service.redis_client.client import open_redis
from syncrec.cli import main
from tests.service.cluster import redis_cluster
from tests.service.events.rows import DAY, DAY_S, NOON, served, told
from tests.service.running import wait_for
from tests.service.servers import running_server


@pytest.fixture
async def connection(redis_url):
    async with Redis.from_url(redis_url) as connection:
        yield connection


async def put(connection, *rows):
    log = EventLog(connection, queue_limit=10**6, stream_limit=10**6)
    for row in rows:
        log.put(row)
    await log.flush()


async def drain(connection, out, now=NOON, **options):
    return await Drain(connection, DrainOptions(out, once=True, **options), clock=lambda: now).run(asyncio.Event())


def on_disk(out, table, day=DAY):
    return [row for file in parts(out / table / f"day={day}") for row in pq.ParquetFile(file).read().to_pylist()]


def ids(out):
    found = [
        row["recommendation_id"] for day in days(out, "recommendations") for row in on_disk(out, "recommendations", day)
    ]
    return found + [row["event_id"] for day in days(out, "events") for row in on_disk(out, "events", day)]


def some_rows(number):
    rows = [served(f"u{n}", at=NOON - DAY_S * (n % 2)) for n in range(number)]
    return rows + [told(row) for row in rows[::3]]


def ids_of(rows):
    return [getattr(row, "event_id", None) or row.recommendation_id for row in rows]


async def test_rows_lie_under_their_days_with_all_they_say(connection, tmp_path):
    row = served(latency_ms=1.5, interleaved="team-draft")
    row.lists[0] = type(row.lists[0])("Books", ["i1", "i2"], ["a", "b"], 2, 0.25)
    late = told(row, timestamp=NOON + 3 * DAY_S)
    await put(connection, row, late, served(at=NOON - DAY_S, variant=None, error=True, items=()))
    done = await drain(connection, tmp_path)
    assert (done.rows, done.files) == (3, 3)
    [found] = on_disk(tmp_path, "recommendations")
    assert found["lists"] == [
        {"domain": "Books", "item_ids": ["i1", "i2"], "team": ["a", "b"], "explored": 2, "propensity": 0.25}
    ]
    assert found["at"].isoformat() == "2026-09-22T12:00:00"
    assert {name: found[name] for name in ("user_id", "experiment", "variant", "reason", "latency_ms")} == {
        "user_id": "u1", "experiment": "exp", "variant": "a", "reason": "SPLIT", "latency_ms": 1.5,
    }  # fmt: skip
    [click] = on_disk(tmp_path, "events")
    assert (click["rank"], click["timestamp"].isoformat()) == (1, "2026-09-25T12:00:00")
    [other] = on_disk(tmp_path, "recommendations", "2026-09-21")
    assert (other["experiment"], other["error"], other["lists"]) == (None, True, [])
    [counts] = pq.ParquetFile(tmp_path / "served" / f"day={DAY}" / "counts.parquet").read().to_pylist()
    assert counts == {"experiment": "exp", "variant": "a", "served": 1}
    assert await connection.xlen(STREAM) == 0


async def test_batches_are_bounded_and_a_second_drain_finds_nothing(connection, tmp_path):
    rows = some_rows(120)
    await put(connection, *rows)
    done = await drain(connection, tmp_path, batch_rows=50)
    assert done.rows == len(rows)
    assert Counter(ids(tmp_path)) == Counter(ids_of(rows))
    assert (await drain(connection, tmp_path)).rows == 0


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    import pyarrow, redis
    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline
    from service.events.drain import Drain, DrainOptions
    from service.events.stream import FIELD, STREAM
    from tests.service.events.rows import NOON

    pyarrow.array([{}])  # looks for pandas, here and not in each child
    url, folder = sys.argv[1], Path(sys.argv[2])
    entries = [bytes.fromhex(line) for line in sys.stdin]

    def kill_at(step):
        def counted(owner, name):
            real = getattr(owner, name)
            def instead(*arguments, **named):
                nonlocal step
                step -= 1
                if not step:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **named)
            setattr(owner, name, instead)
        for owner, names in ((os, ["fsync"]), (Path, ["open", "replace", "mkdir"]), (Redis, ["execute_command"]), (Pipeline, ["execute"])):
            for name in names:
                counted(owner, name)

    async def drain(out):
        async with Redis.from_url(url) as connection:
            options = DrainOptions(out, once=True, batch_rows=6, claim_after_s=0)
            await Drain(connection, options, clock=lambda: NOON).run(asyncio.Event())

    def in_child(step, out):
        child = os.fork()
        if not child:
            if step:
                kill_at(step)
            asyncio.run(drain(out))
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    step, code = 0, -signal.SIGKILL
    while code == -signal.SIGKILL:
        step += 1
        with redis.Redis.from_url(url) as client:
            client.flushdb()
            for entry in entries:
                client.xadd(STREAM, {FIELD: entry})
        code = in_child(step, folder / str(step))
        assert not in_child(0, folder / str(step))
    assert not code
"""


def test_killed_at_any_step_the_next_one_completes_the_log(redis_url, tmp_path):
    rows = some_rows(6)
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), redis_url, str(tmp_path)],
        input="".join(f"{encode(row).hex()}\n" for row in rows), text=True, check=True,
    )  # fmt: skip
    folders = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(folders) > 30
    for folder in folders:
        assert set(ids(folder)) == set(ids_of(rows)), folder
    doubled = [folder for folder in folders if len(ids(folder)) > len(rows)]
    assert doubled
    roll_ups = set()
    for folder in [*doubled[::4], folders[-1]]:
        roll_up(folder, RollUpOptions(until=datetime.fromtimestamp(NOON, UTC) + timedelta(days=9)))
        tables = sorted((folder / "rollup").rglob("*.parquet"))
        # Which rows are there twice is told in arms, and nowhere else.
        roll_ups.add(tuple(file.read_bytes() for file in tables if file.name != "arms.parquet"))
    assert len(roll_ups) == 1


async def test_drains_side_by_side_share_the_work(connection, redis_url, tmp_path):
    rows = some_rows(600)
    await put(connection, *rows)
    async with Redis.from_url(redis_url) as other:
        done = await asyncio.gather(*(drain(one, tmp_path, batch_rows=40) for one in (connection, other)))
    assert all(one.rows > 0 for one in done)
    assert Counter(ids(tmp_path)) == Counter(ids_of(rows))


async def test_what_a_dead_drain_took_is_taken_over_after_a_while(connection, tmp_path):
    rows = some_rows(20)
    await put(connection, *rows)
    await connection.xgroup_create(STREAM, GROUP, id="0")
    await connection.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=15)
    done = await drain(connection, tmp_path)
    assert done.rows == len(rows) - 15
    await drain(connection, tmp_path, claim_after_s=0)
    assert Counter(ids(tmp_path)) == Counter(ids_of(rows))


async def test_a_row_of_another_version_stays_where_it_is_and_is_told_once(connection, tmp_path, caplog):
    await connection.xadd(STREAM, {"row": b"?"})
    await connection.xadd(STREAM, {"other": b"?"})
    await put(connection, served())
    done = await drain(connection, tmp_path, claim_after_s=0, batch_rows=1)
    assert (done.rows, done.unreadable) == (1, 2)
    assert len(caplog.records) == 2
    assert await connection.xlen(STREAM) == 2


FULL = """
    import resource, sys
    from syncrec.cli import main
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    sys.exit(main(["events", "drain", "--once", "--redis", sys.argv[1], "--out", sys.argv[2]]))
"""


async def test_a_full_disk_is_one_clear_line_and_nothing_is_acknowledged(connection, redis_url, tmp_path):
    rows = some_rows(50)
    await put(connection, *rows)
    command = [sys.executable, "-c", textwrap.dedent(FULL), redis_url, str(tmp_path)]
    result = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "cannot write" in result.stderr
    assert await connection.xlen(STREAM) == len(rows)
    assert not list(tmp_path.rglob("*part*"))
    await drain(connection, tmp_path, claim_after_s=0)
    assert Counter(ids(tmp_path)) == Counter(ids_of(rows))


async def test_days_beyond_the_retention_go_and_do_not_come_back(connection, tmp_path):
    old = served(at=NOON - 10 * DAY_S)
    await put(connection, old, served())
    await drain(connection, tmp_path)
    assert len(days(tmp_path, "recommendations")) == 2
    await put(connection, told(old))
    done = await drain(connection, tmp_path, retention_days=7)
    assert done.too_old == 1
    assert days(tmp_path, "recommendations") == [DAY]
    assert days(tmp_path, "events") == []
    assert len(days(tmp_path, "served")) == 2


async def test_many_small_files_become_one_with_the_same_rows(connection, tmp_path):
    rows = [served(f"u{n}") for n in range(MANY_PARTS + 5)]
    await put(connection, *rows)
    await drain(connection, tmp_path, batch_rows=1)
    assert len(parts(tmp_path / "recommendations" / f"day={DAY}")) < 10
    assert Counter(ids(tmp_path)) == Counter(ids_of(rows))


async def test_an_erased_user_leaves_only_the_count(connection, tmp_path):
    mine, others = served("me", at=NOON - 60), served("you", at=NOON - 60)
    await put(connection, mine, told(mine, user_id="me"), others, told(others, user_id="you"))
    await drain(connection, tmp_path)
    # Still in the stream at that time, and from after it.
    late, new = served("me", at=NOON - 30), served("me", at=NOON + 60)
    await put(connection, late, told(late, user_id="me"), new, told(new, user_id="me", after_s=70.0))
    await mark_erased(connection, "me", NOON)
    await drain(connection, tmp_path)
    erased = await erased_users(connection)
    assert erase_from_disk(tmp_path, erased) == 2
    assert erase_from_disk(tmp_path, erased) == 0
    left = {row["recommendation_id"]: row for row in on_disk(tmp_path, "recommendations")}
    assert left.keys() == {row.recommendation_id for row in (mine, late, others, new)}
    for row in (mine, late):
        assert (left[row.recommendation_id]["user_id"], left[row.recommendation_id]["lists"]) == ("", [])
        assert left[row.recommendation_id]["variant"] == "a"
    assert left[new.recommendation_id]["user_id"] == "me"
    assert Counter(row["user_id"] for row in on_disk(tmp_path, "events")) == {"you": 1, "me": 1}
    assert b"me" not in dict(await connection.zrange(ERASED_USERS, 0, -1, withscores=True))


async def test_a_mark_stays_while_rows_from_before_it_may_come(connection):
    await mark_erased(connection, "me", NOON)
    erased = await erased_users(connection)
    await connection.xadd(STREAM, {"row": b""}, id=f"{NOON * 1000}-0")
    await forget_marks(connection, erased)
    assert await erased_users(connection) == erased
    await connection.delete(STREAM)
    await forget_marks(connection, erased)
    assert await erased_users(connection) == {}


async def test_an_erasure_waits_for_a_drain_that_did_not_know_of_it(connection, tmp_path):
    from service.events.files import together

    order = []
    with together(tmp_path):
        task = asyncio.create_task(asyncio.to_thread(lambda: (erase_from_disk(tmp_path, {}), order.append("erased"))))
        await asyncio.sleep(0.2)
        order.append("written")
    await task
    assert order == ["written", "erased"]


def test_the_command_drains_and_erases(redis_url, tmp_path, capsys):
    async def fill():
        async with Redis.from_url(redis_url) as connection:
            await put(connection, served("me", at=0), served("you"))

    asyncio.run(fill())
    where = ["--redis", redis_url, "--out", str(tmp_path)]
    assert main(["events", "drain", "--once", *where]) == 0
    assert capsys.readouterr().out == "2 rows to 2 files\n"
    assert main(["events", "erase", "--user-id", "me", *where]) == 0
    assert capsys.readouterr().out == "1 users, 1 rows\n"
    assert [row["user_id"] for row in on_disk(tmp_path, "recommendations", "1970-01-01")] == [""]
    assert main(["events", "erase", *where]) == 0
    assert capsys.readouterr().out == "1 users, 0 rows\n"
    assert main(["events", "erase", *where]) == 0
    assert capsys.readouterr().out == "0 users, 0 rows\n"


@contextmanager
def endless(out, url):
    command = [sys.executable, "-m", "syncrec", "events", "drain", "--redis", url, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def test_it_goes_on_over_an_outage_and_ends_well_when_told(tmp_path):
    with running_server(appendonly="yes") as server:
        url = f"redis://127.0.0.1:{server.port}"
        with endless(tmp_path, url) as process:
            async with Redis.from_url(url) as connection:
                await put(connection, served("before"))
            await asyncio.to_thread(wait_for, lambda: len(ids(tmp_path)) == 1, 60)
            server.kill()
            await asyncio.sleep(1)
            server.start_again()
            async with Redis.from_url(url) as connection:
                await put(connection, served("after"))
            await asyncio.to_thread(wait_for, lambda: len(ids(tmp_path)) == 2, 60)
            process.send_signal(signal.SIGTERM)
            out, _ = await asyncio.to_thread(process.communicate)
            assert process.returncode == 0
            assert out == "2 rows to 2 files\n"


async def test_once_without_redis_is_one_clear_line(tmp_path):
    with running_server() as server:
        url = f"redis://127.0.0.1:{server.port}"
    async with Redis.from_url(url) as connection:
        with pytest.raises(WorkFailed, match="Redis fails"):
            await drain(connection, tmp_path)


async def test_over_a_cluster(tmp_path):
    rows = some_rows(30)
    with redis_cluster() as cluster:
        async with open_redis(cluster.url, timeout_ms=10_000, connections=2) as connection:
            await put(connection, *rows)
            done = await drain(connection, tmp_path, batch_rows=20)
            await mark_erased(connection, "u1", NOON)
            await forget_marks(connection, await erased_users(connection))
    assert done.rows == len(rows)
    assert Counter(ids(tmp_path)) == Counter(ids_of(rows))
