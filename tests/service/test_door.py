"""What holds for every request: problem documents, request ids, limits, the routes around /recommend."""

import json
import logging
import socket
import threading

import httpx
import pytest

from service.app import create_app
from service.errors import DeadlineExceeded, QueueFull
from service.recommend import Recommender
from service.settings import Settings
from tests.service.running import serve, wait_for

MAX_BODY = Settings().body_limit_bytes


def assert_problem(response, status):
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "request_id", "errors"}
    assert problem["status"] == status
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


def post(service, content, **headers):
    return service.client.post("/recommend", content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("GET", "/recommend", 405), ("POST", "/healthz", 405), ("POST", "/recommend/", 404)],
)
def test_errors_of_every_route_are_problem_documents(service, method, path, status):
    assert_problem(service.client.request(method, path, follow_redirects=True), status)


def test_a_wrong_method_says_which_is_right(service):
    assert service.client.get("/recommend").headers["allow"] == "POST"


@pytest.mark.parametrize("body", [b"", b"{", b'{"user_id": "\xff"}', b"[]", b'{"user_id": "u"} {}', b"[" * 100_000])
def test_a_body_that_is_not_the_json_wanted_is_refused(service, body):
    problem = assert_problem(post(service, body), 422)
    assert problem["errors"]


def test_every_wrong_field_is_named(service):
    body = {"user_id": "x" * 257, "k": 101, "explain": True, "history": [{"item_id": "", "domain": "Books"}]}
    problem = assert_problem(service.recommend(**body), 422)
    assert {error["field"] for error in problem["errors"]} == {"user_id", "k", "explain", "history[0].item_id"}


def test_more_than_1000_events_are_refused(service):
    history = [{"item_id": "B1", "domain": "Books"}] * 1001
    problem = assert_problem(service.recommend(user_id="u", history=history), 422)
    assert problem["errors"][0]["field"] == "history"
    assert service.recommend(user_id="u", history=history[:1000]).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_another_media_type_is_refused(service, kind):
    assert_problem(post(service, b'{"user_id": "u"}', **{"content-type": kind}), 415)


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8", "application/ld+json"])
def test_json_media_types_are_taken(service, kind):
    assert post(service, b'{"user_id": "u"}', **{"content-type": kind}).status_code == 200


@pytest.mark.parametrize("path", ["/recommend", "/healthz", "/nothing"])
def test_a_body_over_the_limit_is_refused_on_every_route(service, path):
    assert_problem(service.client.post(path, content=b" " * (MAX_BODY + 1)), 413)


def test_a_body_without_a_length_is_counted_as_it_arrives(service):
    def chunks():
        for _ in range(40):
            yield b" " * (MAX_BODY // 30)

    assert_problem(post(service, chunks()), 413)


def test_a_body_in_pieces_is_put_together(service):
    assert post(service, iter([b'{"user', b'_id": ', b'"u"}'])).json()["user_id"] == "u"


def test_a_body_up_to_the_limit_is_taken(service):
    body = b'{"user_id": "u"}'
    assert post(service, body + b" " * (MAX_BODY - len(body))).status_code == 200


def test_a_body_that_does_not_arrive_is_refused(service, monkeypatch):
    monkeypatch.setattr("service.http.fast.BODY_TIMEOUT_S", 0.05)
    host, port = service.client.base_url.host, service.client.base_url.port
    with socket.create_connection((host, port), timeout=10) as client:
        client.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
        assert b" 408 " in client.recv(4096)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(service, caplog):
    host, port = service.client.base_url.host, service.client.base_url.port
    with socket.create_connection((host, port), timeout=10) as client:
        client.sendall(b"POST /recommend HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
    assert service.recommend(user_id="u").status_code == 200
    assert "bug" not in caplog.text


@pytest.mark.parametrize("given", ["abc-1", "with space", "x" * 128, "~!@#$%^&*()"])
def test_a_request_id_is_echoed(service, given):
    for response in (
        service.client.post("/recommend", json={"user_id": "u"}, headers={"x-request-id": given}),
        service.client.get("/healthz", headers={"x-request-id": given}),
        service.client.get("/nothing", headers={"x-request-id": given}),
    ):
        assert response.headers["x-request-id"] == given


@pytest.mark.parametrize("given", [b"", b"x" * 129, b"\xc3\xa9", b"a\tb"])
def test_a_request_id_that_is_not_printable_or_too_long_is_replaced(service, given):
    response = service.client.post("/recommend", json={"user_id": "u"}, headers={b"x-request-id": given})
    made = response.headers["x-request-id"]
    assert made.encode() != given
    assert len(made) == 36
    assert "x-request-id" in service.client.get("/healthz").headers


@pytest.mark.parametrize("user_id", ['"', "\\", "\n", "\x00", "é", "𝄞", "</script>", "{a}{b}", "x" * 256])
def test_odd_user_ids_come_back_as_they_are(service, store, user_id):
    store(user_id, [("Books", "B1")])
    answer = service.recommend(user_id=user_id).json()
    assert answer["user_id"] == user_id
    assert answer["source"] == "model"


def test_a_full_queue_is_429_with_the_time_to_wait(service, monkeypatch):
    async def refuse(*_, **__):
        raise QueueFull

    monkeypatch.setattr(Recommender, "recommend", refuse)
    response = service.recommend(user_id="u")
    assert_problem(response, 429)
    assert response.headers["retry-after"] == "1"


def test_a_missed_deadline_is_503(service, monkeypatch):
    async def miss(*_, **__):
        raise DeadlineExceeded

    monkeypatch.setattr(Recommender, "recommend", miss)
    assert_problem(service.recommend(user_id="u"), 503)


@pytest.mark.parametrize("path", ["/recommend", "/readyz"])
def test_a_bug_is_500_with_the_id_under_which_the_log_has_it_and_nothing_else(service, monkeypatch, caplog, path):
    def fail(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(Recommender, "recommend", fail)
    monkeypatch.setattr("service.http.routes.ProviderState", fail)
    with caplog.at_level(logging.ERROR):
        response = service.recommend(user_id="u") if path == "/recommend" else service.client.get(path)
    assert_problem(response, 500)
    assert "secret" not in response.text
    wait_for(lambda: "secret" in caplog.text)  # it is logged after the answer
    assert service.client.get("/healthz").status_code == 200


def test_alive(service):
    assert service.client.get("/healthz").json() == {"status": "alive"}


def test_ready_says_model_provider_and_redis(service):
    assert service.client.get("/readyz").json() == {
        "status": "ready",
        "model_version": "small-1",
        "provider": {"asked": "cpu", "got": "CPUExecutionProvider"},
        "history_store": "available",
        "redis": "embedded",
    }


def test_auto_says_in_log_metric_and_readiness_what_it_got(models, redis_url, caplog):
    with caplog.at_level(logging.INFO), serve(models_dir=models, redis_url=redis_url) as auto:
        got = {"asked": "auto", "got": "CPUExecutionProvider"}
        assert auto.client.get("/readyz").json()["provider"] == got
        assert 'syncrec_provider_info{asked="auto",got="CPUExecutionProvider"} 1.0' in auto.client.get("/metrics").text
    assert [record.provider_got for record in caplog.records if hasattr(record, "provider_got")] == [got["got"]]


def test_metrics_count_answers_by_source_and_never_name_a_user(models, redis_url, store):
    store("someone-special", [("Books", "B1")])
    with serve(models_dir=models, redis_url=redis_url) as service:
        count_answers(service)


def count_answers(service):
    service.recommend(user_id="someone-special")
    service.recommend(user_id="someone-else")
    service.recommend(user_id="someone-else", k=0)
    service.client.get("/nothing/someone-special")
    model = {"model_version": "small-1"}
    assert service.metric("syncrec_recommendations_total", source="model", **model) == 1
    assert service.metric("syncrec_recommendations_total", source="popularity", **model) == 1
    assert service.metric("syncrec_recommendations_total", source="degraded", **model) == 0
    assert service.metric("syncrec_http_responses_total", route="/recommend", status="422") == 1
    assert service.metric("syncrec_http_responses_total", route="other", status="404") == 1
    for source in ("model", "popularity"):
        assert service.metric("syncrec_recommend_seconds_count", source=source, **model) == 1
    for stage, count in {"history": 2, "queue": 1, "inference": 1, "rest": 2}.items():
        assert service.metric("syncrec_stage_seconds_count", stage=stage) == count
    assert "someone" not in service.client.get("/metrics").text


def test_two_applications_count_apart(models, redis_url):
    with serve(models_dir=models, redis_url=redis_url) as one, serve(models_dir=models, redis_url=redis_url) as two:
        one.recommend(user_id="u")
        assert one.metric("syncrec_recommend_seconds_count", source="popularity", model_version="small-1") == 1
        assert two.metric("syncrec_recommend_seconds_count", source="popularity", model_version="small-1") == 0


def test_openapi_describes_the_route_and_its_problems(service):
    schema = service.client.get("/openapi.json").json()
    operation = schema["paths"]["/recommend"]["post"]
    assert list(operation["responses"]["422"]["content"]) == ["application/problem+json"]
    assert set(operation["responses"]) == {"200", "401", "403", "408", "413", "415", "422", "429", "500", "503"}
    assert list(schema["components"]["schemas"]["RecommendBody"]["properties"]) == [
        "user_id",
        "domains",
        "k",
        "exclude_seen",
        "exclude_item_ids",
        "history",
        "candidates",
        "categories",
    ]
    assert service.client.get("/docs").status_code == 200


def test_answers_fit_what_openapi_says(service, store):
    from service.http.schemas import RecommendAnswer

    store("u1", [("Books", "B1")])
    for body in ({"user_id": "u1"}, {"user_id": "nobody"}, {"user_id": "u1", "candidates": {"Books": []}}):
        text = service.recommend(**body).text
        answer = RecommendAnswer.model_validate_json(text, strict=True)
        assert answer.model_dump(exclude_unset=True) == json.loads(text)


def test_a_hundred_concurrent_requests_each_get_their_own_answer(models, redis_url, store):
    # A hundred client threads share this process and its lock with the service: give Redis time.
    with serve(models_dir=models, redis_url=redis_url, redis_timeout_ms=5000, request_timeout_ms=10_000) as service:
        ask_a_hundred(service, store)


def ask_a_hundred(service, store):
    users = {f"u{n}": [("Books", f"B{4 + n % 30}"), ("Toys", f"T{4 + n % 20}")] for n in range(100)}
    for user_id, history in users.items():
        store(user_id, history)
    alone = {user_id: service.recommend(user_id=user_id).json() for user_id in users}
    together = {}

    def ask(user_id):
        with httpx.Client(base_url=service.client.base_url, timeout=20) as client:
            together[user_id] = client.post("/recommend", json={"user_id": user_id}).json()

    threads = [threading.Thread(target=ask, args=[user_id]) for user_id in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for user_id in users:
        assert together[user_id]["source"] == "model"
        assert together[user_id]["user_id"] == user_id
        for domain, items in alone[user_id]["domains"].items():
            assert [item["item_id"] for item in items] == [
                item["item_id"] for item in together[user_id]["domains"][domain]
            ]


def test_an_application_is_fresh_on_each_call():
    assert create_app(Settings()) is not create_app(Settings())


def test_the_browser_module_is_served_as_it_is_and_cached(service):
    from importlib.resources import files

    response = service.client.get("/recommend.js")
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.content == files("service.pages").joinpath("recommend.js").read_bytes()
    again = service.client.get("/recommend.js", headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
