"""POST /events over HTTP and a real Redis: each event once, in every replica's next answer, and in what is popular."""

import itertools
import json
import time

import pytest
import redis

from service.history.keys import history_key
from service.history.packed import unpack
from service.models.live import LiveModel
from tests.service.running import RedisProcess, serve, wait_for
from tests.service.small_bundle import DOMAINS, ids

NOW = int(time.time())
_number = itertools.count()


def event(user_id, item_id, domain="Books", **more):
    return {"event_id": f"e{next(_number)}", "user_id": user_id, "item_id": item_id, "domain": domain, **more}


def send(service, *events):
    return service.client.post("/events", json={"events": list(events)})


def listed(service, user_id, domain="Books", **more):
    answer = service.recommend(user_id=user_id, domains=[domain], k=100, **more).json()
    return [item["item_id"] for item in answer["domains"][domain]]


@pytest.fixture
def replicas(models, redis_url):
    """Two services over one Redis."""
    with (
        serve(models_dir=models, redis_url=redis_url, redis_timeout_ms=5000) as one,
        serve(models_dir=models, redis_url=redis_url, redis_timeout_ms=5000) as other,
    ):
        yield one, other


def test_an_accepted_event_is_in_the_next_answer_of_every_replica(replicas):
    one, other = replicas
    for n in range(30):
        writes, reads = (one, other) if n % 2 else (other, one)
        user = f"u{n}"
        response = send(writes, event(user, f"B{n % 3}"), event(user, "T1", "Toys", event="click"))
        assert response.status_code == 202
        assert response.json() == {"accepted": 2, "duplicates": 0, "rejected": []}
        answer = reads.recommend(user_id=user, k=100).json()
        assert answer["source"] == "model"
        assert f"B{n % 3}" not in [item["item_id"] for item in answer["domains"]["Books"]]
        assert "T1" not in [item["item_id"] for item in answer["domains"]["Toys"]]


def test_an_impression_is_taken_but_is_no_history(service):
    assert send(service, event("u1", "B1", event="impression")).json()["accepted"] == 1
    answer = service.recommend(user_id="u1", domains=["Books"], k=100).json()
    assert answer["source"] == "popularity"
    assert len(answer["domains"]["Books"]) == DOMAINS["Books"]


def test_an_event_counts_once_whoever_it_is_sent_to(replicas, redis_url):
    one, other = replicas
    same = event("u1", "B1", timestamp=NOW)
    assert send(one, same, same).json() == {"accepted": 1, "duplicates": 1, "rejected": []}
    assert send(other, same).json() == {"accepted": 0, "duplicates": 1, "rejected": []}
    with redis.Redis.from_url(redis_url) as client:
        assert len(unpack(client.get(history_key("u1"))).events) == 1


def test_late_events_land_in_the_order_of_time(service, redis_url):
    for item_id, age_s in (("B4", 10), ("B1", 30), ("B2", 20)):
        send(service, event("u1", item_id, timestamp=NOW - age_s))
    history = service.client.get("/users/u1/history").json()
    assert [one["item_id"] for one in history["events"]] == ["B1", "B2", "B4"]
    assert [one["timestamp"] for one in history["events"]] == [NOW - 30, NOW - 20, NOW - 10]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"domain": "Garden"}, "unknown domain"),
        ({"timestamp": NOW * 1000}, "milliseconds"),
        ({"timestamp": "soon"}, "ISO 8601"),
        ({"event_id": ""}, "event_id"),
        ({"event": "purchase"}, "event"),
        ({"more": 1}, "more"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"rank": 0}, "rank"),
    ],
)
def test_a_bad_event_is_told_with_its_place_and_why_and_the_others_are_taken(service, change, reason):
    answer = send(service, event("u1", "B1"), {**event("u1", "B2"), **change}, event("u1", "B4")).json()
    assert answer["accepted"] == 2
    assert [one["index"] for one in answer["rejected"]] == [1]
    assert reason in answer["rejected"][0]["reason"]
    assert {"B1", "B4"}.isdisjoint(listed(service, "u1"))


@pytest.mark.parametrize("body", [b"{}", b'{"events": {}}', b'{"events": [}', b'{"events": [], "more": 1}', b"[]"])
def test_a_body_that_is_no_list_of_events_is_refused(service, body):
    response = service.client.post("/events", content=body)
    assert response.status_code == 422
    assert response.json()["errors"]


def test_a_thousand_events_are_taken_and_one_more_is_refused(service):
    many = [event(f"u{n % 50}", ids("Books")[n % 40]) for n in range(1000)]
    assert send(service, *many).json()["accepted"] == 1000
    assert send(service, *many, event("u1", "B1")).status_code == 422


def test_nothing_is_called_accepted_while_redis_is_away_and_it_can_be_sent_again(models):
    with RedisProcess() as process, serve(models_dir=models, redis_url=process.url, write_timeout_ms=500) as service:
        wait_for(lambda: service.recommend(user_id="u1").json()["source"] == "popularity")
        sent = event("u1", "B1")
        process.kill()
        refused = send(service, sent)
        assert refused.status_code == 503
        assert refused.json()["type"] == "urn:syncrec:problem:history-unavailable"
        assert refused.headers["retry-after"] == "1"
        process.start()
        wait_for(lambda: send(service, sent).status_code == 202)
        wait_for(lambda: service.recommend(user_id="u1").json()["source"] == "model")
        assert "B1" not in listed(service, "u1")


def test_seen_items_stay_out_however_many_came_after(models, redis_url):
    with serve(models_dir=models, redis_url=redis_url, history_limit=3, redis_timeout_ms=5000) as service:
        had = ids("Books")[:35]
        send(service, *(event("u1", item_id, timestamp=NOW - 100 + n) for n, item_id in enumerate(had)))
        assert sorted(listed(service, "u1")) == sorted(ids("Books")[35:])
        assert sorted(listed(service, "u1", exclude_seen=False)) == sorted(ids("Books"))
        history = service.client.get("/users/u1/history").json()
        assert (len(history["events"]), history["older_items"]) == (3, 32)


def test_what_is_chosen_now_leads_the_popular_list_of_every_replica(replicas):
    one, other = replicas
    assert listed(one, "nobody")[0] == "B0"
    send(one, *(event(f"u{n}", "B30") for n in range(60)))
    for replica in replicas:
        wait_for(lambda replica=replica: listed(replica, "nobody")[0] == "B30")
    assert "B30" not in listed(other, "nobody", exclude_item_ids=["B30"])


def test_an_item_that_the_model_does_not_know_enters_through_popularity(replicas):
    one, other = replicas
    send(one, *(event(f"u{n}", "brand-new") for n in range(60)))
    for replica in replicas:
        wait_for(lambda replica=replica: listed(replica, "nobody")[0] == "brand-new")
    answer = other.recommend(user_id="nobody", domains=["Books"], k=3).json()["domains"]["Books"]
    assert [item["rank"] for item in answer] == [1, 2, 3]
    assert "title" not in answer[0]
    assert answer[0]["score"] > answer[1]["score"]
    assert "brand-new" not in listed(other, "nobody", exclude_item_ids=["brand-new"])
    history = [{"item_id": "brand-new", "domain": "Books"}]
    assert "brand-new" not in listed(other, "nobody", history=history)
    assert "brand-new" in listed(other, "nobody", history=history, exclude_seen=False)
    assert "brand-new" not in listed(other, "u1")  # who had it
    assert "brand-new" not in listed(other, "nobody", candidates={"Books": ["B1", "B2"]})
    put = other.client.put("/items/Books/brand-new", json={"available": False})
    assert put.json()["known"] is False
    for replica in replicas:
        wait_for(lambda replica=replica: "brand-new" not in listed(replica, "nobody"))


def test_what_became_of_events_is_counted(models, redis_url):
    with serve(models_dir=models, redis_url=redis_url) as service:
        same = event("u1", "B1")
        send(service, same, same, {**event("u1", "B1"), "domain": "Garden"})
        for outcome in ("accepted", "duplicate", "rejected"):
            assert service.metric("syncrec_events_total", outcome=outcome) == 1


def test_half_a_character_costs_its_event_alone(service):
    good, bad = event("u1", "B1"), event("u1", "B2")
    body = json.dumps({"events": [good, {**bad, "item_id": "cut \ud83d"}, event("u1", "B4")]})
    answer = service.client.post("/events", content=body.encode()).json()
    assert answer["accepted"] == 2
    assert [one["index"] for one in answer["rejected"]] == [1]
    assert {"B1", "B4"}.isdisjoint(listed(service, "u1"))


def test_what_is_excluded_and_what_is_shown_are_of_one_view_of_popularity(models, redis_url, monkeypatch):
    """An item that becomes known while a request runs is not shown to who had it."""
    newest, views = LiveModel.popularity.fget, []
    with serve(models_dir=models, redis_url=redis_url, redis_timeout_ms=5000) as service:
        with monkeypatch.context() as patched:
            patched.setattr(LiveModel, "popularity", property(lambda model: views.append(newest(model)) or views[-1]))
            listed(service, "nobody")
        send(service, event("u1", "only-just"))
        wait_for(lambda: "only-just" in listed(service, "nobody"))
        older = iter(views[:1])
        monkeypatch.setattr(LiveModel, "popularity", property(lambda model: next(older, None) or newest(model)))
        assert "only-just" not in listed(service, "u1")
