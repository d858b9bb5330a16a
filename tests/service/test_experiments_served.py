"""Experiments over HTTP: who gets what, whatever fails stays in its arm, and a row for everything that was served."""

import time
from collections import Counter

import msgspec
import pytest
import redis

from service.events.served import Served, Told, decode
from service.events.stream import STREAM
from tests.service.models_folder import add_bundle
from tests.service.running import serve, wait_for
from tests.service.small_bundle import all_items, ids, reference_list

HISTORY = [("Books", "B4"), ("Toys", "T9")]
GIVEN = [{"domain": domain, "item_id": item_id} for domain, item_id in HISTORY]


@pytest.fixture
def folder(tmp_path):
    for number in (1, 2):
        add_bundle(tmp_path, number)
    return tmp_path


@pytest.fixture
def service(folder, redis_url):
    with serve(models_dir=folder, redis_url=redis_url, redis_timeout_ms=5000, request_timeout_ms=20_000) as running:
        yield running


def put(service, key="one", **fields):
    body = {"state": "running", "variants": [{"name": "a"}, {"name": "b"}], **fields}
    return service.client.put(f"/experiments/{key}", json=body)


def variant(name, **policy):
    return {"name": name, "policy": policy}


def ask(service, user_id, **more):
    return service.recommend(**{"user_id": user_id, "k": 5, "history": GIVEN, **more}).json()


def listed(answer, domain="Books"):
    return [item["item_id"] for item in answer["domains"][domain]]


def of_model(number, domain="Books", k=5):
    history = [all_items().index(item) + 1 for item in HISTORY]
    seen = {item_id for name, item_id in HISTORY if name == domain}
    return [item_id for item_id, _ in reference_list(history, domain, k, seen, seed=number)]


def popular(k=5, domain="Books"):
    return [item_id for item_id in ids(domain) if (domain, item_id) not in HISTORY][:k]


def user_in(service, name):
    """A user of that variant."""
    return next(f"u{n}" for n in range(1000) if (ask(service, f"u{n}")["experiment"] or {}).get("variant") == name)


def rows(url):
    with redis.Redis.from_url(url) as client:
        return [decode(fields[b"row"]) for _, fields in client.xrange(STREAM)]


def test_without_an_experiment_nobody_is_in_one(service):
    answer = ask(service, "u1")
    assert (answer["experiment"], answer["experiments"]) == (None, [])


def test_users_are_split_by_weight_keep_their_arm_and_each_arm_answers_by_its_policy(service):
    weights = [{**variant("a"), "weight": 3}, {**variant("b", popularity=True), "weight": 1}]
    assert put(service, variants=weights).status_code == 200
    arms = Counter()
    for n in range(400):
        answer = ask(service, f"u{n}")
        arms[answer["experiment"]["variant"]] += 1
        assert answer["experiment"]["key"] == "one"
        assert answer["experiment"]["reason"] == "SPLIT"
        if answer["experiment"]["variant"] == "a":
            assert (answer["source"], listed(answer)) == ("model", of_model(2))
        else:
            assert (answer["source"], listed(answer)) == ("popularity", popular())
    assert 60 <= arms["b"] <= 140
    assert all(ask(service, f"u{n}")["experiment"] == ask(service, f"u{n}")["experiment"] for n in range(20))


def test_variants_answer_with_bundles_of_their_own_on_every_replica(folder, redis_url):
    settings = {"models_dir": folder, "redis_url": redis_url, "redis_timeout_ms": 5000}
    with serve(**settings) as one, serve(**settings) as other:
        put(one, variants=[variant("a"), variant("b", model_version="model-1")])
        for service in (one, other):
            wait_for(lambda service=service: ask(service, "u0")["experiment"] is not None)
            user = user_in(service, "b")
            wait_for(lambda service=service, user=user: ask(service, user)["model_version"] == "model-1")
            assert listed(ask(service, user)) == of_model(1)
            assert listed(ask(service, user_in(service, "a"))) == of_model(2)


def test_an_arm_whose_model_is_not_there_answers_by_popularity_and_stays_an_arm(service):
    put(service, variants=[variant("a"), variant("b", model_version="gone")])
    user = user_in(service, "b")
    answer = ask(service, user)
    assert (answer["source"], answer["experiment"]["variant"]) == ("degraded", "b")
    assert listed(answer) == popular()
    assert service.metric("syncrec_part_failures_total", part="model", reason="UnknownModel") >= 1


def test_a_blend_has_popularity_s_share_of_the_places_and_no_item_twice(service):
    put(service, variants=[variant("a"), variant("b", blend={"with": "popularity", "share": 0.4})])
    answer = ask(service, user_in(service, "b"), k=10)
    found = listed(answer)
    assert len(set(found)) == len(found) == 10
    model, favourites = of_model(2, k=20), popular(10)
    taken = []
    for rank in range(10):
        source = favourites if int((rank + 1) * 0.4) > int(rank * 0.4) else model
        taken.append(next(item_id for item_id in source if item_id not in taken))
    assert found == taken
    assert answer["source"] == "model"


def test_interleaved_lists_hold_both_rankers_items_and_the_log_says_whose_each_is(service, redis_url):
    put(service, kind="interleaving", variants=[variant("old", model_version="model-1"), variant("new")])
    wait_for(lambda: ask(service, "u1")["source"] == "model")
    answer = ask(service, "u1", k=6)
    wait_for(lambda: any(row.recommendation_id == answer["recommendation_id"] for row in rows(redis_url)))
    row = next(row for row in rows(redis_url) if row.recommendation_id == answer["recommendation_id"])
    assert row.interleaved == "team_draft"
    for one in row.lists:
        assert one.item_ids == listed(answer, one.domain)
        counts = Counter(one.team)
        assert set(counts) <= {"old", "new"}
        assert abs(counts["old"] - counts["new"]) <= 1 or one.domain == "Games"
        tops = {"old": of_model(1, one.domain, 70), "new": of_model(2, one.domain, 70)}
        # Everybody's pick is the best of theirs that was not shown yet.
        for place, (item_id, team) in enumerate(zip(one.item_ids, one.team, strict=True)):
            left = [candidate for candidate in tops[team] if candidate not in one.item_ids[:place]]
            assert item_id == left[0]


def test_overrides_are_told_apart_and_other_lists_than_planned_are_outside(service):
    put(
        service,
        k=5,
        domains=["Books"],
        overrides={"tester": "b"},
        variants=[variant("a"), variant("b", popularity=True)],
    )
    answer = ask(service, "tester", domains=["Books"])
    assert answer["experiment"] == {"key": "one", "variant": "b", "reason": "TARGETING_MATCH"}
    assert ask(service, "tester", domains=["Books"], k=6)["experiment"] is None
    assert ask(service, "tester", domains=["Toys"])["experiment"] is None


def test_experiments_of_several_layers_are_all_named_and_have_a_row_each(service, redis_url):
    put(service, "answers", variants=[variant("a"), variant("b", popularity=True)])
    put(service, "button", layer="page")
    answer = ask(service, "u1")
    assert answer["experiment"]["key"] == "answers"
    assert {one["key"] for one in answer["experiments"]} == {"answers", "button"}
    made = answer["recommendation_id"]
    wait_for(lambda: sum(row.recommendation_id == made for row in rows(redis_url)) == 2)


def test_everything_served_told_and_refused_has_its_row(service, redis_url):
    put(service)
    answer = ask(service, "u1")
    click = {
        "event_id": "e1", "event": "click", "user_id": "u1", "domain": "Books", "item_id": listed(answer)[0],
        "recommendation_id": answer["recommendation_id"], "rank": 1, "timestamp": time.time(),
    }  # fmt: skip
    assert service.client.post("/events", json={"events": [click]}).json()["accepted"] == 1
    found = rows(redis_url)  # 202 is said when the log has it
    [told] = [row for row in found if isinstance(row, Told)]
    assert (told.recommendation_id, told.rank, told.event) == (answer["recommendation_id"], 1, "click")
    [served] = [row for row in found if isinstance(row, Served) and row.recommendation_id == told.recommendation_id]
    assert (served.experiment, served.variant, served.reason) == ("one", answer["experiment"]["variant"], "SPLIT")
    assert {one.domain: one.item_ids for one in served.lists} == {
        name: listed(answer, name) for name in answer["domains"]
    }
    assert served.latency_ms > 0
    service.recommend(user_id="u1", history=GIVEN, k=5)
    late = service.client.post(
        "/recommend", json={"user_id": "u1", "history": GIVEN}, headers={"X-Request-Timeout-Ms": "1"}
    )
    if late.status_code == 503:
        wait_for(lambda: any(isinstance(row, Served) and row.error for row in rows(redis_url)))


def test_what_may_not_change_is_refused_with_why(service):
    put(service, traffic=0.1)
    for fields, why in (
        ({"traffic": 0.05}, "only grow"),
        ({"traffic": 0.1, "salt": "other"}, "change arms"),
        ({"traffic": 0.1, "state": "draft"}, "cannot be a draft"),
    ):
        response = put(service, **fields)
        assert response.status_code == 409
        assert why in response.json()["detail"]
    assert put(service, traffic=0.5).json()["traffic"] == 0.5
    assert service.client.delete("/experiments/one").status_code == 409
    assert put(service, traffic=0.5, state="stopped").json()["state"] == "stopped"
    assert ask(service, "u1")["experiment"] is None
    assert service.client.delete("/experiments/one").status_code == 204
    assert service.client.get("/experiments/one").status_code == 404
    assert service.client.get("/experiments").json() == []


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"variants": 3}', b'{"variants": [], "price": 1}', b"\xff"])
def test_a_definition_that_is_none_is_refused(service, body):
    response = service.client.put("/experiments/one", content=body)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")


def test_a_definition_reads_back_as_it_was_put(service):
    made = put(service, state="draft", hypothesis="new is better", minimum_effect=0.1).json()
    assert service.client.get("/experiments/one").json() == made
    assert service.client.get("/experiments").json() == [made]
    assert msgspec.convert(made["variants"], list[dict])[0]["name"] == "a"
