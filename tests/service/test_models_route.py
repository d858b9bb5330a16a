"""Bundles switched while requests run: nothing dropped, nothing mixed, bad ones refused, all replicas the same."""

import threading
import time

import httpx
import numpy as np
import pytest
import redis

from service.models.registry import KEY
from tests.service.models_folder import add_bundle, damage
from tests.service.running import RedisProcess, resident_mb, serve, wait_for
from tests.service.small_bundle import all_items, make_bundle, reference_list

HISTORY = [("Books", "B4"), ("Toys", "T9")]
REQUEST = {"user_id": "u1", "k": 7, "history": [{"domain": domain, "item_id": item_id} for domain, item_id in HISTORY]}


def is_whole_answer_of(answer, number):
    """Whether every list of an answer is that of one model version."""
    history = [all_items().index(item) + 1 for item in HISTORY]
    for domain, items in answer["domains"].items():
        seen = {item_id for name, item_id in HISTORY if name == domain}
        wanted = reference_list(history, domain, 7, seen, seed=number)
        if [item["item_id"] for item in items] != [item_id for item_id, _ in wanted]:
            return False
        if not np.allclose([item["score"] for item in items], [score for _, score in wanted], rtol=1e-4, atol=1e-5):
            return False
    return answer["model_version"] == f"model-{number}" and answer["source"] == "model"


def active(service):
    return service.client.get("/models").json()["active"]


def activate(service, version):
    return service.client.post(f"/models/{version}/activate")


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2, 3):
        add_bundle(tmp_path, number)
    return tmp_path


@pytest.fixture
def service(folder, redis_url):
    with serve(models_dir=folder, redis_url=redis_url, redis_timeout_ms=5000, request_timeout_ms=20_000) as running:
        yield running


def test_the_newest_serves_until_another_is_activated_and_rollback_brings_it_back(service):
    assert active(service) == "model-3"
    response = activate(service, "model-1")
    assert (response.status_code, response.json()) == (200, {"active": "model-1", "before": "model-3"})
    assert is_whole_answer_of(service.recommend(**REQUEST).json(), 1)
    assert {one["model_version"]: one["state"] for one in service.client.get("/models").json()["models"]} == {
        "model-3": "previous",
        "model-2": "available",
        "model-1": "active",
    }
    assert service.client.post("/models/rollback").json() == {"active": "model-3", "before": "model-1"}
    assert is_whole_answer_of(service.recommend(**REQUEST).json(), 3)
    assert service.client.post("/models/rollback").json()["active"] == "model-1"


def test_without_an_activation_there_is_nothing_to_roll_back(service):
    response = service.client.post("/models/rollback")
    assert response.status_code == 409
    assert active(service) == "model-3"


def test_a_new_bundle_needs_no_restart(service, folder):
    add_bundle(folder, 4)
    assert active(service) == "model-3"
    assert activate(service, "model-4").status_code == 200
    assert is_whole_answer_of(service.recommend(**REQUEST).json(), 4)


@pytest.mark.parametrize("version", ["model-9", "..", "%2e%2e", "..%2fmodel-1", "model-1%00", ".hidden", "x" * 128])
def test_a_bundle_that_is_not_in_the_models_folder_is_not_found(service, version):
    assert service.client.post(f"/models/{version}/activate").status_code in {404, 405}
    assert active(service) == "model-3"


def test_a_folder_beside_the_models_folder_cannot_be_reached(service, folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    add_bundle(outside, 8)
    (folder / "link").symlink_to(outside / "model-8")
    response = activate(service, "link")
    assert response.status_code == 409
    assert "model_version" in response.json()["detail"]


@pytest.mark.parametrize("name", ["ranker.onnx", "items.parquet", "warmup.jsonl", "manifest.json"])
def test_a_damaged_bundle_is_refused_by_file_name_and_the_old_one_serves_on(service, folder, name):
    damage(folder, "model-1", name)
    response = activate(service, "model-1")
    assert response.status_code == 409
    assert name in response.json()["detail"]
    assert is_whole_answer_of(service.recommend(**REQUEST).json(), 3)
    assert active(service) == "model-3"
    models = {one["model_version"]: one for one in service.client.get("/models").json()["models"]}
    assert name in models["model-1"]["problem"]


def test_a_bundle_that_answers_otherwise_than_at_export_is_refused(service, folder):
    add_bundle(folder, 5, warmup_shift=0.1)
    response = activate(service, "model-5")
    assert response.status_code == 409
    assert "otherwise than at export" in response.json()["detail"]
    assert active(service) == "model-3"
    assert service.client.post("/models/rollback").status_code == 409


def test_all_replicas_follow_and_later_ones_begin_with_the_active_model(folder, redis_url):
    settings = {"models_dir": folder, "redis_url": redis_url, "redis_timeout_ms": 5000}
    with serve(**settings) as one, serve(**settings) as other:
        activate(one, "model-1")
        start = time.monotonic()
        wait_for(lambda: is_whole_answer_of(other.recommend(**REQUEST).json(), 1))
        assert time.monotonic() - start < 5
        other.client.post("/models/rollback")
        wait_for(lambda: is_whole_answer_of(one.recommend(**REQUEST).json(), 3))
        activate(other, "model-2")
    with serve(**settings) as later:
        assert is_whole_answer_of(later.recommend(**REQUEST).json(), 2)


def test_a_damaged_newest_bundle_is_passed_over_and_told(folder, redis_url, caplog):
    damage(folder, "model-3")
    with serve(models_dir=folder, redis_url=redis_url) as service:
        assert active(service) == "model-2"
    assert "passed over" in caplog.text
    assert "ranker.onnx" in caplog.text


def test_a_newer_bundle_that_nobody_activated_is_not_served_by_who_starts_later(folder, redis_url):
    with serve(models_dir=folder, redis_url=redis_url) as one:
        add_bundle(folder, 4)
        with serve(models_dir=folder, redis_url=redis_url) as later:
            assert (active(one), active(later)) == ("model-3", "model-3")


def test_a_replica_that_cannot_load_the_active_model_serves_on_and_says_so(folder, redis_url, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("models")
    add_bundle(elsewhere, 3)
    with (
        serve(models_dir=folder, redis_url=redis_url) as one,
        serve(models_dir=elsewhere, redis_url=redis_url) as lacking,
    ):
        activate(one, "model-1")
        wait_for(lambda: lacking.metric("syncrec_part_failures_total", part="model", reason="UnknownModel"))
        assert active(lacking) == "model-3"
        assert is_whole_answer_of(lacking.recommend(**REQUEST).json(), 3)


def test_an_active_model_that_is_gone_does_not_keep_the_service_from_starting(folder, redis_url, caplog):
    with redis.Redis.from_url(redis_url) as client:
        client.hset(KEY, mapping={"version": "gone", "previous": "model-1", "number": 1})
    with serve(models_dir=folder, redis_url=redis_url) as service:
        assert active(service) == "model-3"
    assert "no bundle 'gone'" in caplog.text


def test_nothing_changes_while_redis_is_away(folder):
    with RedisProcess() as process, serve(models_dir=folder, redis_url=process.url, write_timeout_ms=300) as service:
        process.kill()
        response = activate(service, "model-1")
        assert response.status_code == 503
        assert active(service) == "model-3"
        assert is_whole_answer_of(service.recommend(**REQUEST).json(), 3)


def test_twenty_switches_under_load_drop_and_mix_nothing(service):
    stop, statuses, wrong = threading.Event(), [], []

    def ask():
        with httpx.Client(base_url=service.client.base_url, timeout=20) as client:
            while not stop.is_set():
                response = client.post("/recommend", json=REQUEST)
                statuses.append(response.status_code)
                answer = response.json()
                if not any(is_whole_answer_of(answer, number) for number in (1, 2, 3)):
                    wrong.append(answer)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(20):
            assert activate(service, f"model-{1 + turn % 3}").status_code == 200
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}
    assert len(statuses) > 100
    assert wrong == []


def test_switches_give_memory_back(tmp_path, redis_url):
    """Of a bundle of some megabytes, many switches keep less than one."""
    for number, name in enumerate("ab"):
        make_bundle(tmp_path, version=name, seed=number, width_of_vectors=50_000)  # 28 MB
    with serve(models_dir=tmp_path, redis_url=redis_url, redis_timeout_ms=5000, request_timeout_ms=20_000) as service:
        sizes = []
        for turn in range(50):
            assert activate(service, "ab"[turn % 2]).status_code == 200
            assert service.recommend(**REQUEST).json()["model_version"] == "ab"[turn % 2]
            sizes.append(resident_mb())
    # A switch is answered while the old one may still be in memory: what stays is the least of some.
    assert min(sizes[-10:]) - min(sizes[:10]) < 28


def test_a_request_keeps_the_model_that_it_began_with(folder, redis_url, monkeypatch):
    """Its model is not closed under it, however long Redis takes."""
    from service.history.store import HistoryStore

    waiting, go_on = threading.Event(), threading.Event()
    look_up = HistoryStore.look_up

    async def slow(store, user_id):
        import asyncio

        if user_id == "slow":
            waiting.set()
            await asyncio.to_thread(go_on.wait, 20)
        return await look_up(store, user_id)

    monkeypatch.setattr(HistoryStore, "look_up", slow)
    with serve(models_dir=folder, redis_url=redis_url, request_timeout_ms=20_000) as service:
        answers = []
        thread = threading.Thread(target=lambda: answers.append(service.recommend(user_id="slow").json()))
        thread.start()
        assert waiting.wait(10)
        with httpx.Client(base_url=service.client.base_url, timeout=20) as client:
            client.post("/models/model-1/activate")
            assert client.post("/recommend", json=REQUEST).json()["model_version"] == "model-1"
        go_on.set()
        thread.join()
    assert answers[0]["model_version"] == "model-3"
