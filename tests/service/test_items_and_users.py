"""Items off sale, similar items, and what is held of a user, over HTTP."""

import pytest
import redis

from tests.service.running import RedisProcess, serve, wait_for
from tests.service.small_bundle import DOMAINS, all_items, ids, make_bundle


def listed(service, user_id, domain="Books", **more):
    answer = service.recommend(user_id=user_id, domains=[domain], k=100, **more).json()
    return [item["item_id"] for item in answer["domains"][domain]]


def put(service, path, **body):
    return service.client.put(f"/items/{path}", json=body)


def like(service, path, **query):
    return service.client.get(f"/items/{path}/similar", params=query)


def test_an_item_off_sale_leaves_every_replica_s_answers_and_stays_out_after_restarts(models, redis_url, store):
    store("u1", [("Books", "B1")])
    settings = {"models_dir": models, "redis_url": redis_url, "redis_timeout_ms": 5000}
    with serve(**settings) as one, serve(**settings) as other:
        answer = put(one, "Books/B7", available=False)
        assert (answer.status_code, answer.json()["known"]) == (200, True)
        assert "B7" not in listed(one, "u1")  # at once where it was set
        for user_id in ("u1", "nobody"):
            wait_for(lambda user_id=user_id: "B7" not in listed(other, user_id), timeout_s=3)
        assert "B7" not in listed(other, "u1", candidates={"Books": ["B7", "B8"]})
        assert listed(other, "u1", candidates={"Books": ["B7", "B8"]}) == ["B8"]
    with serve(**settings) as restarted:
        assert "B7" not in listed(restarted, "u1")
        put(restarted, "Books/B7", available=True)
        assert "B7" in listed(restarted, "u1")


def test_categories_that_are_set_take_the_place_of_the_bundle_s(service, store, redis_url):
    store("u1", [("Books", "B1")])
    red = listed(service, "u1", categories=["red"])
    moved = red[0]
    put(service, f"Books/{moved}", categories=["sale"])
    assert moved not in listed(service, "u1", categories=["red"])
    assert listed(service, "u1", categories=["sale"]) == [moved]
    assert listed(service, "nobody", categories=["sale"]) == [moved]
    put(service, f"Books/{moved}")
    assert listed(service, "u1", categories=["red"]) == red


@pytest.mark.parametrize("body", [{"available": "no"}, {"categories": "red"}, {"price": 1}, {"categories": [""]}])
def test_a_wrong_state_is_refused(service, body):
    assert put(service, "Books/B1", **body).status_code == 422


def test_an_item_of_an_unknown_domain_is_refused(service):
    response = put(service, "Garden/spade", available=False)
    assert response.status_code == 422
    assert "Garden" in response.json()["detail"]


def test_a_state_is_not_called_set_while_redis_is_away(models):
    with RedisProcess() as process, serve(models_dir=models, redis_url=process.url, write_timeout_ms=300) as service:
        process.kill()
        assert put(service, "Books/B1", available=False).status_code == 503


def test_similar_items_come_per_domain_without_the_item_itself_or_what_is_off_sale(service):
    everything = like(service, "Books/B1", k=100).json()
    assert everything["model_version"] == "small-1"
    assert list(everything["domains"]) == list(DOMAINS)
    for domain, items in everything["domains"].items():
        assert sorted(item["item_id"] for item in items) == sorted(
            set(ids(domain)) - ({"B1"} if domain == "Books" else set())
        )
        scores = [item["score"] for item in items]
        assert scores == sorted(scores, reverse=True)
        assert [item["rank"] for item in items] == list(range(1, len(items) + 1))
    nearest = everything["domains"]["Toys"][0]["item_id"]
    put(service, f"Toys/{nearest}", available=False)
    fewer = like(service, "Books/B1", k=3, domains=["Toys"]).json()["domains"]
    assert [item["item_id"] for item in fewer["Toys"]] == [
        item["item_id"] for item in everything["domains"]["Toys"][1:4]
    ]
    put(service, f"Toys/{nearest}", available=True)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("Books/gone", {}, 404),
        ("Garden/spade", {}, 422),
        ("Books/B1", {"domains": ["Garden"]}, 422),
        ("Books/B1", {"k": 0}, 422),
        ("Books/B1", {"k": 101}, 422),
    ],
)
def test_what_cannot_be_similar_is_told(service, path, query, status):
    response = like(service, path, **query)
    assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json")


def test_a_bundle_without_vectors_says_so(tmp_path, redis_url):
    make_bundle(tmp_path, vectors=None)
    with serve(models_dir=tmp_path, redis_url=redis_url) as service:
        response = like(service, "Books/B1")
        assert response.status_code == 422
        assert "similar" in response.json()["detail"]


def test_a_history_is_shown_in_terms_of_the_served_model(service, store):
    store("u1", [("Books", "B1"), ("Garden", "spade"), ("Toys", "T2")])
    shown = service.client.get("/users/u1/history").json()
    assert [(one["domain"], one["item_id"]) for one in shown["events"]] == [
        ("Books", "B1"),
        (None, None),
        ("Toys", "T2"),
    ]
    assert shown["events"][0]["title"] == 'Title "B1" é'
    assert service.client.get("/users/nobody/history").json() == {"user_id": "nobody", "events": [], "older_items": 0}


@pytest.mark.parametrize("user_id", ["u1", "a/b", "é ☃", "{x}", "}", "a%2Fb", " "])
def test_everything_of_a_user_is_erased_and_nothing_of_others(service, redis_url, user_id):
    """No key and no value has the id any more, nor anything that was made of it."""
    from urllib.parse import quote

    def events(user, first):
        return [
            {"event_id": f"{user}-{first + n}", "user_id": user, "item_id": item_id, "domain": domain}
            for n, (domain, item_id) in enumerate(all_items()[:9])
        ]

    def held(client):
        """All that Redis holds of people, by key."""
        reads = {
            b"string": client.get,
            b"hash": client.hgetall,
            b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
            b"stream": client.xrange,
        }
        keys = (key for key in client.keys("*") if b"popularity" not in key)
        return {key: reads[client.type(key)](key) for key in keys}

    path = f"/users/{quote(user_id, safe='')}"
    with redis.Redis.from_url(redis_url) as client:
        service.client.post("/events", json={"events": events("other", 0)})
        wait_for(lambda: b"syncrec:event-log:{log}" in client.keys("*"))
        with_other = held(client)
        answer = service.client.post("/events", json={"events": events(user_id, 0)}).json()
        assert answer["accepted"] == 9
        assert service.client.get(f"{path}/history").json()["events"]
        assert held(client) != with_other
        assert service.client.delete(path).json() == {"user_id": user_id, "erased": True}
        after = held(client)
        marks = after.pop(b"syncrec:erased-users:{log}")
        assert after == with_other
        assert [len(mark) for mark, _ in marks] == [16]  # a hash, so that rows that are still on their way are found
        if len(user_id) > 1:
            assert user_id not in repr(after)
            assert user_id.encode() not in repr(marks).encode()
    assert service.client.delete(path).json()["erased"] is False
    assert service.recommend(user_id=user_id).json()["source"] == "popularity"
