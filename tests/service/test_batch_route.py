"""POST /recommend/batch: the answers of single requests, in order, all by one model or none at all."""

import threading

import httpx
import pytest

from tests.service.models_folder import add_bundle
from tests.service.running import serve

HISTORY = [("Books", "B4"), ("Toys", "T9"), ("Games", "G1")]


def ask(service, *requests):
    return service.client.post("/recommend/batch", json={"requests": list(requests)})


def without_id(answer):
    return {name: value for name, value in answer.items() if name != "recommendation_id"}


def test_results_are_those_of_single_requests_in_their_order(service, store):
    store("u1", HISTORY)
    requests = [
        {"user_id": "u1"},
        {"user_id": "nobody", "k": 3},
        {"user_id": "u1", "domains": ["Toys"], "exclude_seen": False},
        {"user_id": "u2", "history": [{"item_id": "B1", "domain": "Books"}], "exclude_item_ids": ["B2", "gone"]},
        {"user_id": "u1", "candidates": {"Books": ["B7", "B8"]}, "categories": ["red"]},
    ]
    results = ask(service, *requests).json()["results"]
    for request, result in zip(requests, results, strict=True):
        alone = service.recommend(**request).json()
        assert without_id(result)["missing_ids"] == alone["missing_ids"]
        assert result["source"] == alone["source"]
        for domain, items in alone["domains"].items():
            assert [item["item_id"] for item in result["domains"][domain]] == [item["item_id"] for item in items]
            for mine, other in zip(result["domains"][domain], items, strict=True):
                assert mine["score"] == pytest.approx(other["score"], rel=1e-4, abs=1e-6)
    assert len({result["recommendation_id"] for result in results}) == len(requests)


def test_256_requests_are_answered_and_one_more_or_none_is_refused(service):
    many = [{"user_id": f"u{n}"} for n in range(256)]
    results = ask(service, *many).json()["results"]
    assert [result["user_id"] for result in results] == [f"u{n}" for n in range(256)]
    assert ask(service, *many, {"user_id": "u"}).status_code == 422
    assert ask(service).status_code == 422


def test_every_wrong_field_of_every_request_is_named_and_nothing_is_answered(service):
    in_form = ask(service, {"user_id": "u"}, {"user_id": "", "k": 0}, {"k": 1})
    assert in_form.status_code == 422
    assert {error["field"] for error in in_form.json()["errors"]} == {
        "requests[1].user_id",
        "requests[1].k",
        "requests[2].user_id",
    }
    in_meaning = ask(
        service,
        {"user_id": "u", "domains": ["Garden"]},
        {"user_id": "u"},
        {"user_id": "u", "history": [{"item_id": "B1", "domain": "Books", "timestamp": "soon"}]},
    )
    assert in_meaning.status_code == 422
    assert [error["field"] for error in in_meaning.json()["errors"]] == [
        "requests[0].domains[0]",
        "requests[2].history[0].timestamp",
    ]


def test_all_of_a_batch_is_answered_by_one_model(tmp_path, redis_url):
    for number in (1, 2):
        add_bundle(tmp_path, number)
    stop = threading.Event()
    with serve(models_dir=tmp_path, redis_url=redis_url, redis_timeout_ms=5000, request_timeout_ms=20_000) as service:
        store_user = {"event_id": "1", "user_id": "u1", "item_id": "B1", "domain": "Books"}
        service.client.post("/events", json={"events": [store_user]})

        def switch():
            with httpx.Client(base_url=service.client.base_url, timeout=20) as client:
                turn = 0
                while not stop.is_set():
                    client.post(f"/models/model-{1 + turn % 2}/activate")
                    turn += 1

        thread = threading.Thread(target=switch)
        thread.start()
        try:
            versions = [
                {result["model_version"] for result in ask(service, *[{"user_id": "u1"}] * 40).json()["results"]}
                for _ in range(30)
            ]
        finally:
            stop.set()
            thread.join()
    assert all(len(found) == 1 for found in versions)
    assert len(set.union(*versions)) == 2


def test_a_batch_that_finds_the_queue_full_is_refused_as_a_whole(models, redis_url, store):
    store("u1", HISTORY)
    with serve(models_dir=models, redis_url=redis_url, queue_limit=4, max_batch=1, redis_timeout_ms=5000) as service:
        response = ask(service, *[{"user_id": "u1"}] * 100)
        assert response.status_code == 429
        assert response.headers["retry-after"] == "1"
        assert ask(service, {"user_id": "u1"}).status_code == 200
