"""Redis away, slow or back; a model that fails; clients that leave: answers stay right and come in time."""

import threading
import time

import httpx
import pytest

from service.ranking.session import OnnxSession
from tests.service.running import RedisProcess, delaying_proxy, serve, store_history, wait_for
from tests.service.small_bundle import DOMAINS, ids

HISTORY = [("Books", "B1"), ("Toys", "T5")]


@pytest.fixture
def tcp_redis():
    with RedisProcess() as process:
        yield process


@pytest.fixture
def fragile(models, tcp_redis):
    """A service over a Redis that the test may stop."""
    store_history(tcp_redis.url, "u1", HISTORY)
    with serve(models_dir=models, redis_url=tcp_redis.url, redis_timeout_ms=100) as running:
        wait_for(lambda: running.recommend(user_id="u1").json()["source"] == "model")
        yield running


def assert_degraded(response, k=10):
    assert response.status_code == 200
    answer = response.json()
    assert answer["source"] == "degraded"
    for domain in DOMAINS:
        assert [item["item_id"] for item in answer["domains"][domain]] == ids(domain)[:k]


def test_a_redis_that_stalls_is_answered_by_popularity_in_time_and_used_again_afterwards(fragile, tcp_redis):
    tcp_redis.stop()
    try:
        for _ in range(5):
            start = time.monotonic()
            assert_degraded(fragile.recommend(user_id="u1"))
            assert time.monotonic() - start < 1
        ready = fragile.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["history_store"] == "unavailable"
    finally:
        tcp_redis.resume()
    wait_for(lambda: fragile.recommend(user_id="u1").json()["source"] == "model")
    assert fragile.client.get("/readyz").json()["status"] == "ready"
    assert fragile.metric("syncrec_part_failures_total", part="history", reason="timeout") >= 5


def test_a_hundred_requests_while_redis_stalls_are_all_answered_in_time(fragile, tcp_redis):
    answers = []

    def ask():
        with httpx.Client(base_url=fragile.client.base_url, timeout=20) as client:
            answers.append(client.post("/recommend", json={"user_id": "u1"}))

    threads = [threading.Thread(target=ask) for _ in range(100)]
    tcp_redis.stop()
    try:
        start = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - start < 15
    finally:
        tcp_redis.resume()
    assert len(answers) == 100
    for answer in answers:
        assert_degraded(answer)


def test_a_redis_that_dies_and_comes_back_needs_no_restart_of_the_service(fragile, tcp_redis):
    tcp_redis.kill()
    for _ in range(5):
        assert_degraded(fragile.recommend(user_id="u1"))
    tcp_redis.start()
    store_history(tcp_redis.url, "u1", HISTORY)
    wait_for(lambda: fragile.recommend(user_id="u1").json()["source"] == "model")


def test_filters_hold_in_degraded_answers_too(fragile, tcp_redis):
    tcp_redis.kill()
    answer = fragile.recommend(user_id="u1", domains=["Books"], k=2, exclude_item_ids=["B0"]).json()
    assert answer["source"] == "degraded"
    assert [item["item_id"] for item in answer["domains"]["Books"]] == ["B1", "B2"]


def test_a_history_in_the_request_needs_no_redis(fragile, tcp_redis):
    tcp_redis.kill()
    answer = fragile.recommend(user_id="u1", history=[{"item_id": "B1", "domain": "Books"}]).json()
    assert answer["source"] == "model"


def test_the_service_starts_without_redis_and_uses_it_when_it_is_there(models, tcp_redis):
    tcp_redis.kill()
    with serve(models_dir=models, redis_url=tcp_redis.url) as running:
        assert_degraded(running.recommend(user_id="u1"))
        tcp_redis.start()
        store_history(tcp_redis.url, "u1", HISTORY)
        wait_for(lambda: running.recommend(user_id="u1").json()["source"] == "model")


def test_a_value_that_is_no_history_is_degraded(service, redis_url):
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.set("syncrec:history:{u1}", b"\x07nonsense")
    assert_degraded(service.recommend(user_id="u1"))


def test_a_model_that_fails_is_degraded_and_counted_and_seen_items_stay_out(service, store, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("out of memory")

    store("u1", HISTORY)
    before = service.metric("syncrec_part_failures_total", part="model", reason="ModelFailed") or 0
    with monkeypatch.context() as patched:
        patched.setattr(OnnxSession, "run", fail)
        answer = service.recommend(user_id="u1", k=3).json()
    assert answer["source"] == "degraded"
    assert [item["item_id"] for item in answer["domains"]["Books"]] == ["B0", "B2", "both"]
    assert service.metric("syncrec_part_failures_total", part="model", reason="ModelFailed") == before + 1
    assert "out of memory" in caplog.text
    assert service.recommend(user_id="u1").json()["source"] == "model"


def test_a_slow_model_is_503_at_the_deadline_and_429_when_too_many_wait(models, redis_url, store, monkeypatch):
    running = OnnxSession.run
    gate = threading.Event()

    def wait(session, batch):
        gate.wait(20)
        return running(session, batch)

    store("u1", HISTORY)
    statuses = []
    with serve(
        models_dir=models,
        redis_url=redis_url,
        request_timeout_ms=300,
        queue_limit=2,
        max_batch=1,
        redis_timeout_ms=5000,
    ) as slow:
        monkeypatch.setattr(OnnxSession, "run", wait)

        def ask():
            with httpx.Client(base_url=slow.client.base_url, timeout=20) as client:
                statuses.append(client.post("/recommend", json={"user_id": "u1"}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gate.set()
        wait_for(lambda: slow.recommend(user_id="u1").status_code == 200)
    assert set(statuses) == {429, 503}


def test_an_outage_is_logged_once_a_second_and_not_per_request(fragile, tcp_redis, caplog):
    tcp_redis.kill()
    caplog.clear()
    start = time.monotonic()
    for _ in range(30):
        assert_degraded(fragile.recommend(user_id="u1"))
    lines = [record for record in caplog.records if record.name == "service.recommend"]
    assert 1 <= len(lines) <= 2 + (time.monotonic() - start)


def test_clients_that_leave_never_get_another_user_s_history_out(models, tcp_redis):
    """Requests are abandoned at every moment while Redis answers late; every answer that comes is the asker's own."""
    for n in range(30):
        store_history(
            tcp_redis.url, f"u{n}", [("Books", item_id) for item_id in ids("Books") if item_id != f"B{4 + n}"]
        )
    with (
        delaying_proxy(tcp_redis.port, 0.02) as port,
        serve(models_dir=models, redis_url=f"redis://127.0.0.1:{port}/0", redis_timeout_ms=2000) as running,
    ):
        wrong, right = [], []

        def ask(worker):
            for turn in range(20):
                n = (worker * 7 + turn) % 30
                # Some clients give up before, some while, some after Redis has answered.
                timeout = [0.005, 0.015, 0.025, 0.04, 20][turn % 5]
                try:
                    with httpx.Client(base_url=running.client.base_url, timeout=timeout) as client:
                        answer = client.post("/recommend", json={"user_id": f"u{n}", "domains": ["Books"]}).json()
                except httpx.TimeoutException:
                    continue
                if answer["source"] == "model":
                    got = [item["item_id"] for item in answer["domains"]["Books"]]
                    (right if got == [f"B{4 + n}"] else wrong).append((n, got))

        threads = [threading.Thread(target=ask, args=[worker]) for worker in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(right) >= 20
