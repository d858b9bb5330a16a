"""Redis in every form in which operators run it: everything works over each, and over each what breaks heals by itself."""

import asyncio
import os
import random
import re
import signal
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest
import redis
from redis.exceptions import NoPermissionError

from formats.bundle import newest_bundle
from formats.event_ties import item_hashes
from service.errors import HistoryUnavailable
from service.events.drain import Drain, DrainOptions
from service.events.erasure import erased_users, forget_marks, mark_erased
from service.events.stream import EventLog
from service.experiments.definition import Experiment, Variant
from service.experiments.store import ExperimentStore
from service.history.erase import erase_user
from service.history.keys import event_ids_key, history_key
from service.history.store import open_histories
from service.history.write import HistoryRules, HistoryWriter, NewEvent
from service.ranking.catalog import read_catalog
from service.ranking.item_states import ItemState, ItemStateStore
from service.ranking.live_popularity import LivePopularity
from service.redis_client.client import open_redis
from syncrec.cli import main
from tests.service.cluster import redis_cluster
from tests.service.events.rows import served
from tests.service.running import delaying_proxy, serve, wait_for
from tests.service.sentinel import redis_sentinel
from tests.service.servers import REDIS, VALKEY, make_certificates, running_server, with_parameters

NOW = 1_700_000_000
DAY_S = 86_400
RULES = HistoryRules(limit=10, days=90, keep_repeats=False)
USERS = [f"u{n}" for n in range(40)]
OPERATORS_PAGE = Path(__file__).parents[2] / "docs/redis.md"


@contextmanager
def a_server(binary, certificates):
    with running_server(binary, certificates) as server:
        yield with_parameters(f"redis://127.0.0.1:{server.port}/0", certificates)


@contextmanager
def a_unix_socket(binary, folder):
    with running_server(binary, unixsocket=folder / "redis.sock"):
        yield f"unix://{folder}/redis.sock?db=1"


@contextmanager
def a_user(binary, *more_rights):
    with running_server(binary) as server:
        server.ask("ACL", "SETUSER", *published_user(), *more_rights)
        server.ask("CONFIG", "RESETSTAT")
        server.ask("ACL", "SETUSER", "default", "off")
        yield f"redis://syncrec:secret%2F@127.0.0.1:{server.port}/0"


def published_user(place=0):
    """The words of ACL SETUSER in the operators' page: a server's, a cluster's more, a sentinel's."""
    lines = re.findall(r"^ACL SETUSER (.*)$", OPERATORS_PAGE.read_text(), re.MULTILINE)
    # A password that has to be encoded.
    return lines[place].replace(">PASSWORD", ">secret/").split()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["valkey", "redis"])
def binary(request):
    if request.param == "redis" and REDIS is None:
        pytest.skip("redis-server is not installed")
    return VALKEY if request.param == "valkey" else REDIS


@pytest.fixture(params=["server", "unix", "user", "sentinel", "cluster", "server-tls", "sentinel-tls", "cluster-tls"])
def url(request, binary, tmp_path):
    """Of a Redis of each form."""
    form, _, has_tls = request.param.partition("-")
    if has_tls and binary == VALKEY:
        pytest.skip("this server is built without TLS")
    certificates = request.getfixturevalue("certificates") if has_tls else None
    with ExitStack() as stack:
        if form == "server":
            yield stack.enter_context(a_server(binary, certificates))
        elif form == "unix":
            yield stack.enter_context(a_unix_socket(binary, tmp_path))
        elif form == "user":
            yield stack.enter_context(a_user(binary))
        else:
            start = {"sentinel": redis_sentinel, "cluster": redis_cluster}[form]
            yield stack.enter_context(start(binary, certificates)).url


def event(event_id, user_id, item_id):
    return NewEvent(event_id, user_id, "Books", item_id, NOW, is_listed=True)


def items_of(history):
    return sorted(history.events["item_hash"].tolist())


def hashes(*item_ids):
    return sorted(item_hashes(("Books", item_id) for item_id in item_ids).tolist())


@asynccontextmanager
async def writing(url, timeout_ms=10_000):
    async with open_redis(url, timeout_ms=timeout_ms, connections=4) as client:
        writer = HistoryWriter(client, timeout_ms, RULES)
        yield client, writer
        await writer.close()


async def use_everything(url, models, out):
    """All that the service asks of Redis, but for what only happens in a cluster."""
    bundle = newest_bundle(models)
    catalog = read_catalog(bundle)
    async with open_histories(url, 10_000, 2) as store, writing(url) as (client, writer):
        assert await store.is_available()
        events = [event(f"{user}-{n}", user, f"i{n}") for user in USERS for n in range(3)]
        assert await writer.append(events, NOW) == ["taken"] * len(events)
        assert await writer.append(events, NOW) == ["duplicate"] * len(events)
        for history in await asyncio.gather(*map(store.look_up, USERS)):
            assert items_of(history) == hashes("i0", "i1", "i2")
        assert await store.look_up("nobody") is None

        counts, others_counts = (LivePopularity(client, 7.0, lambda: NOW) for _ in range(2))
        for replica in (counts, others_counts):
            await replica.follow(bundle, catalog)
        counts.count("Books", "new", NOW)
        counts.count("Books", "long ago", NOW - 100 * DAY_S)
        await counts.refresh()
        await others_counts.refresh()  # which removes what hardly counts any more
        counts.count("Books", "newer", NOW)
        await counts.refresh()
        await others_counts.refresh()
        assert others_counts.view(catalog.model_version).domains[0].new_ids[:1] == ["new"]
        kept = await client.hmget("syncrec:popularity:{Books}", "new", "newer", "long ago")
        assert [value is not None for value in kept] == [True, True, False]

        states, others_states = ItemStateStore(client), ItemStateStore(client)
        await states.put("Books", "B1", ItemState(available=False))
        await states.put("Books", "B2", ItemState(available=False))
        await states.put("Books", "B2", ItemState())
        await others_states.refresh()
        assert [others_states.current.of("Books", item_id).available for item_id in ("B1", "B2")] == [False, True]

        experiments, others_experiments = ExperimentStore(client), ExperimentStore(client)
        made = await experiments.put(Experiment(key="one", variants=(Variant("a"), Variant("b")), state="running"))
        await others_experiments.refresh()
        assert others_experiments.current.by_key == {"one": made}
        await experiments.put(msgspec.structs.replace(made, state="stopped"))
        assert await experiments.delete("one")

        log = EventLog(client, queue_limit=1000, stream_limit=1000)
        rows = [served(f"u{n}", at=time.time()) for n in range(5)]
        for row in rows:
            log.put(row)
        await log.flush()
        await mark_erased(client, "u0", time.time())
        done = await Drain(client, DrainOptions(out, once=True)).run(asyncio.Event())
        assert (done.rows, done.files) == (5, 1)
        await forget_marks(client, await erased_users(client))
        assert await erased_users(client) == {}
        log.put(rows[0])  # and a key that is still there when the keys are looked at
        await log.flush()
        await mark_erased(client, "u0", time.time())

        assert await erase_user(client, "u0")
        # More at once than there are connections: they wait for one.
        assert set(await asyncio.gather(*(client.get(history_key("u0")) for _ in range(50)))) == {None}
        assert await store.look_up("u0") is None


def load_histories(url, folder):
    """`syncrec load-histories`, the other one who writes; its exit code."""
    file = folder / "events.csv"
    file.write_text("user_id,item_id,domain,timestamp\nu1,B1,Books,100\n")
    return main(["load-histories", str(file), "--redis", url])


async def test_everything_works(url, models, tmp_path):
    await use_everything(url, models, tmp_path)
    assert await asyncio.to_thread(load_histories, url, tmp_path) == 0
    async with open_histories(url, 10_000, 2) as store:
        assert items_of(await store.look_up("u1")) == hashes("B1")


async def test_a_user_with_the_published_rights_can_do_all_that_is_needed_and_each_right_is_needed(
    binary, models, tmp_path
):
    with a_user(binary, "+info", "+scan") as url:
        await use_everything(url, models, tmp_path)
        assert await asyncio.to_thread(load_histories, url, tmp_path) == 0
        with redis.Redis.from_url(url) as client:
            of_commands = client.info("commandstats")
            keys = {key.decode().partition(":{")[0] for key in client.scan_iter(count=1000)}
    assert keys <= set(re.findall(r"^\| `(syncrec:[a-z-]+)", OPERATORS_PAGE.read_text(), re.MULTILINE))
    used = {name.removeprefix("cmdstat_") for name, stats in of_commands.items() if stats["calls"]}
    granted = {word[1:] for word in published_user() if word.startswith("+")}
    of_this_test = {"acl|setuser", "config|resetstat", "info", "hello", "client|setinfo"}
    assert used - of_this_test - {"auth"} == granted


async def test_with_sentinels_the_published_rights_are_enough(binary, models, tmp_path):
    with redis_sentinel(binary) as watched:
        for server in (watched.master, watched.replica):
            server.ask("ACL", "SETUSER", *published_user())
        for sentinel in watched.sentinels:
            sentinel.ask("ACL", "SETUSER", *published_user(2))
        url = watched.url.replace("://", "://syncrec:secret%2F@")
        await use_everything(f"{url}?sentinel_username=syncrec&sentinel_password=secret%2F", models, tmp_path)


@pytest.mark.parametrize("command", [("FLUSHALL",), ("GET", "other"), ("KEYS", "*"), ("CONFIG", "GET", "*")])
def test_a_user_with_the_published_rights_can_do_nothing_else(binary, command):
    with (
        a_user(binary) as url,
        redis.Redis.from_url(url) as client,
        pytest.raises(NoPermissionError),
    ):
        client.execute_command(*command)


def test_the_service_answers_by_popularity_while_sentinels_find_another_master_and_then_from_there(models):
    with (
        redis_sentinel() as watched,
        serve(models_dir=models, redis_url=watched.url, redis_timeout_ms=100, providers="cpu") as service,
    ):

        def source():
            return service.recommend(user_id="u1").json()["source"]

        asyncio.run(write_one(watched.url, "before", "B1"))
        watched.replicate()
        wait_for(lambda: source() == "model")
        watched.master.kill()
        assert source() == "degraded"
        wait_for(lambda: source() == "model", timeout_s=60)

        asyncio.run(write_one(watched.url, "after", "B2"))
        assert stored(watched.replica, "u1") == hashes("B1", "B2")
        # The old master comes back, is made a replica, and nobody writes to it or reads from it.
        watched.master.start_again()
        wait_for(lambda: watched.master.ask("INFO", "replication")["role"] == "slave", timeout_s=60)
        asyncio.run(write_one(watched.url, "later", "B3"))
        assert stored(watched.replica, "u1") == hashes("B1", "B2", "B3")
        wait_for(lambda: source() == "model")


async def write_one(url, event_id, item_id):
    async with writing(url) as (_, writer):
        assert await writer.append([event(event_id, "u1", item_id)], NOW) == ["taken"]


def stored(server, user_id):
    from service.history.packed import unpack

    return items_of(unpack(server.ask("GET", history_key(user_id))))


async def test_the_same_client_writes_to_the_new_master_after_a_fail_over():
    with redis_sentinel() as watched:
        async with open_histories(watched.url, 500, 2) as store, writing(watched.url, 1000) as (_, writer):
            assert await writer.append([event("1", "u1", "a")], NOW) == ["taken"]
            assert items_of(await store.look_up("u1")) == hashes("a")
            await asyncio.to_thread(watched.replicate)
            watched.master.kill()
            with pytest.raises(HistoryUnavailable):
                await store.look_up("u1")
            with pytest.raises(HistoryUnavailable):
                await writer.append([event("2", "u1", "b")], NOW)
            await until(store.look_up, "u1")
            # What was told to have failed is sent again and counts once.
            assert await until(writer.append, [event("1", "u1", "a"), event("2", "u1", "b")], NOW) == [
                "duplicate",
                "taken",
            ]
            assert items_of(await store.look_up("u1")) == hashes("a", "b")
        assert stored(watched.replica, "u1") == hashes("a", "b")


async def until(ask, *arguments):
    """What it answers once it answers, within a generous time."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await ask(*arguments)
            except HistoryUnavailable:
                await asyncio.sleep(0.05)


async def append_all(writer, events):
    if "failed" in await writer.append(events, NOW):
        raise HistoryUnavailable("failed for some")


async def test_in_a_cluster_a_dead_primary_concerns_its_users_only_until_its_replica_takes_over():
    with redis_cluster(fourth="replica") as cluster:
        dead = cluster.servers[0]
        async with open_histories(cluster.url, 1000, 2) as store, writing(cluster.url, 1000) as (_, writer):
            assert await writer.append([event(user, user, "a") for user in USERS], NOW) == ["taken"] * len(USERS)
            for history in await asyncio.gather(*map(store.look_up, USERS)):
                assert items_of(history) == hashes("a")
            with dead.client() as client:
                await asyncio.to_thread(wait_for, lambda: client.wait(1, 1000) == 1)
            lost = {user for user in USERS if cluster.owner(history_key(user)) is dead}
            assert 0 < len(lost) < len(USERS)
            dead.kill()

            answers = await asyncio.gather(*map(store.look_up, USERS), return_exceptions=True)
            assert {user for user, one in zip(USERS, answers, strict=True) if isinstance(one, Exception)} == lost
            outcomes = await writer.append([event(f"{user}-2", user, "b") for user in USERS], NOW)
            assert {user for user, one in zip(USERS, outcomes, strict=True) if one == "failed"} == lost
            assert await store.is_available()

            for user in lost:
                assert items_of(await until(store.look_up, user)) == hashes("a")
            # Who failed is told so each time, and may send all again.
            await until(append_all, writer, [event(f"{user}-2", user, "b") for user in USERS])
            for history in await asyncio.gather(*map(store.look_up, USERS)):
                assert items_of(history) == hashes("a", "b")


async def test_in_a_cluster_a_primary_that_hangs_soon_concerns_its_users_only():
    with redis_cluster() as cluster:
        hung = cluster.servers[0]
        lost = {user for user in USERS if cluster.owner(history_key(user)) is hung}
        async with open_histories(cluster.url, 100, 2) as store, writing(cluster.url, 500) as (_, writer):
            await until(append_all, writer, [event(user, user, "a") for user in USERS])

            async def only_these_fail(expected):
                answers = await asyncio.gather(*map(store.look_up, USERS), return_exceptions=True)
                failed = {user for user, one in zip(USERS, answers, strict=True) if isinstance(one, HistoryUnavailable)}
                if failed != expected:
                    raise HistoryUnavailable("others fail")

            await until(only_these_fail, set())
            os.kill(hung.process.pid, signal.SIGSTOP)
            try:
                await until(only_these_fail, lost)
            finally:
                os.kill(hung.process.pid, signal.SIGCONT)
            await until(only_these_fail, set())


async def test_in_a_cluster_reads_and_writes_go_on_while_a_slot_moves_to_a_node_that_had_none():
    with redis_cluster(fourth="empty") as cluster:
        source, target = cluster.owner(history_key("u1")), cluster.servers[3]
        slot = cluster.slot(history_key("u1"))
        for server in cluster.servers:
            server.ask("ACL", "SETUSER", *published_user())
            server.ask("ACL", "SETUSER", *published_user(1))
        url = cluster.url.replace("://", "://syncrec:secret%2F@")
        async with open_histories(url, 5000, 4) as store, writing(url) as (client, writer):
            assert await writer.append([event("1", "u1", "a")], NOW) == ["taken"]
            # So that there are several connections, of which only one is told ASKING.
            await asyncio.gather(*(client.get(f"syncrec:{{u1}}{n}") for n in range(20)))
            await asyncio.gather(*(client.get(f"syncrec:{{u1}}{n}") for n in range(20)))

            source_id, target_id = (server.ask("CLUSTER", "MYID").decode() for server in (source, target))
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
            migrate = ("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS")
            source.ask(*migrate, history_key("u1"))
            for _ in range(20):
                assert items_of(await store.look_up("u1")) == hashes("a")
                assert await client.get(history_key("u1")) is not None
            # With one of the two keys on each node no script can run: it is told, and nothing is taken by half.
            with pytest.raises(HistoryUnavailable):
                await writer.append([event("2", "u1", "b")], NOW)
            source.ask(*migrate, event_ids_key("u1"))
            for n in range(20):
                assert await writer.append([event(f"b{n}", "u1", f"b{n}")], NOW) == ["taken"]

            for server in (target, source, *cluster.servers):
                server.ask("CLUSTER", "SETSLOT", slot, "NODE", target_id)
            assert await writer.append([event("1", "u1", "a"), event("3", "u1", "c")], NOW) == ["duplicate", "taken"]
            assert len(items_of(await store.look_up("u1"))) == RULES.limit
            assert items_of(await store.look_up("u1")) == stored(target, "u1")


async def test_a_cluster_that_is_away_at_start_is_used_when_it_is_there():
    with redis_cluster() as cluster:
        for server in cluster.servers:
            server.kill()
        async with open_histories(cluster.url, 500, 2) as store, writing(cluster.url, 1000) as (client, writer):
            assert not await store.is_available()
            with pytest.raises(HistoryUnavailable):
                await store.look_up("u1")
            with pytest.raises(HistoryUnavailable):
                await writer.append([event("1", "u1", "a")], NOW)
            with pytest.raises(HistoryUnavailable):
                await erase_user(client, "u1")
            for server in cluster.servers:
                server.start_again()
            assert await until(writer.append, [event("1", "u1", "a")], NOW) == ["taken"]
            assert items_of(await until(store.look_up, "u1")) == hashes("a")


@pytest.mark.parametrize("form", ["server", "sentinel", "cluster"])
async def test_a_redis_that_restarted_empty_is_written_to_as_before(form):
    starts = {"server": running_server, "sentinel": redis_sentinel, "cluster": redis_cluster}
    with starts[form]() as started:
        servers = {
            "server": lambda: [started],
            "sentinel": lambda: [started.master],
            "cluster": lambda: started.servers,
        }
        url = f"redis://127.0.0.1:{started.port}" if form == "server" else started.url
        async with writing(url) as (client, writer):
            assert await writer.append([event("1", "u1", "a")], NOW) == ["taken"]
            for server in servers[form]():
                server.ask("FLUSHALL")
                server.ask("SCRIPT", "FLUSH")
            assert await writer.append([event("1", "u1", "a")], NOW) == ["taken"]
            assert await client.get(history_key("u1")) is not None


@contextmanager
def behind_slow_lines(form):
    """A Redis whose answers come late, and which cannot be reached otherwise."""
    with ExitStack() as stack:

        def slow(port):
            lines.setdefault(port, None)
            if lines[port] is None:
                lines[port] = stack.enter_context(delaying_proxy(port, 0.02))
            return lines[port]

        lines = {}
        if form == "server":
            server = stack.enter_context(running_server())
            yield f"redis://127.0.0.1:{slow(server.port)}"
        elif form == "sentinel":
            yield stack.enter_context(redis_sentinel(announce=slow)).url
        else:
            cluster = stack.enter_context(redis_cluster(announce=slow))
            hosts = ",".join(f"127.0.0.1:{slow(port)}" for port in cluster.ports)
            yield f"redis+cluster://{hosts}"


@pytest.mark.parametrize("form", ["server", "sentinel", "cluster"])
async def test_who_is_cancelled_never_leaves_an_answer_for_somebody_else(form):
    rng = random.Random(7)
    with behind_slow_lines(form) as url:
        async with open_redis(url, timeout_ms=20_000, connections=3) as client:
            writer = HistoryWriter(client, 20_000, RULES)
            await asyncio.gather(*(client.set(f"syncrec:{n}", n) for n in range(30)))
            right, cancelled, wrong = 0, 0, []

            async def read(n):
                return await client.get(f"syncrec:{n}") == str(n).encode()

            async def write(n):
                # A call's answer is as long as the call, and says of each event what only this call can be told.
                events = [event(f"{n}-{number // 2}", f"w{n}", f"i{number}") for number in range(2 * (n % 5 + 1))]
                expected = ["taken", "duplicate"] * (n % 5 + 1)
                return await writer.append(events, NOW) == expected

            async def ask(worker):
                nonlocal right, cancelled
                for turn in range(20):
                    n = worker * 20 + turn
                    try:
                        # Some give up before, some while, some after the answer comes.
                        async with asyncio.timeout(rng.choice([0.005, 0.015, 0.025, 0.05, 20, 20])):
                            ok = await (write(n) if turn % 2 else read(n % 30))
                    except TimeoutError:
                        cancelled += 1
                        continue
                    right += ok
                    if not ok:
                        wrong.append(n)

            await asyncio.gather(*map(ask, range(8)))
            await writer.close()
    assert wrong == []
    assert right >= 30
    assert cancelled >= 30
