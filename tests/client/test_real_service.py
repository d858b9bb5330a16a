"""Both sides of the contract: the client against the service itself, over a real Redis."""

import threading

import pytest

from syncrec.client import (
    AsyncClient,
    Client,
    Event,
    EventBuffer,
    HistoryEvent,
    InvalidRequest,
    NotAllowed,
    NotFound,
    RateLimited,
    Refused,
    Request,
)
from tests.client.fake import wait_for


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Settings of a service with two bundles, the second of which answers."""
    from service.history.embedded import embedded_redis
    from tests.service.models_folder import add_bundle

    folder = tmp_path_factory.mktemp("models")
    add_bundle(folder, 1)
    add_bundle(folder, 2)
    with embedded_redis(tmp_path_factory.mktemp("redis")) as url:
        yield {"models_dir": folder, "redis_url": url, "providers": "cpu"}


@pytest.fixture(scope="module")
def running(parts):
    from tests.service.running import serve

    with serve(**parts) as running:
        yield running


@pytest.fixture
def client(running):
    with Client(str(running.client.base_url), timeout=20) as client:
        yield client


@pytest.fixture
def user_id(request):
    """Somebody whom no other test knows."""
    return request.node.name


def test_what_was_told_is_in_the_next_answer(client, user_id):
    answer = client.recommend(user_id, domains=["Books", "Toys"], k=3)
    assert (answer.source, answer.model_version, set(answer.domains)) == ("popularity", "model-2", {"Books", "Toys"})
    assert [item.rank for item in answer.domains["Books"]] == [1, 2, 3]
    shown = answer.domains["Books"][0]
    click = Event(user_id, "Books", shown.item_id, "click", recommendation_id=answer.recommendation_id, rank=shown.rank)
    assert client.send_events([click, Event(user_id, "Bokos", "B1")]).rejected[0].index == 1
    assert client.send_events([click]).duplicates == 1
    again = client.recommend(user_id, domains=["Books"], k=40)
    assert again.source == "model"
    assert shown.item_id not in [item.item_id for item in again.domains["Books"]]
    assert [(one.domain, one.item_id) for one in client.history(user_id).events] == [("Books", shown.item_id)]


def test_every_option_is_understood(client, user_id):
    answer = client.recommend(
        user_id,
        domains=["Books"],
        k=2,
        exclude_seen=False,
        exclude_item_ids=["B7"],
        history=[
            HistoryEvent("Books", "B1", 1_700_000_000),
            HistoryEvent("Toys", "nobody knows", "2026-01-01T00:00:00Z"),
        ],
        candidates={"Books": ["B1", "B7", "B8", "B9"]},
    )
    assert {item.item_id for item in answer.domains["Books"]} < {"B1", "B8", "B9"}
    assert answer.missing_ids == ("nobody knows",)
    assert client.history(user_id).events == ()


def test_a_batch_is_answered_in_order_or_not_at_all(client):
    answers = client.recommend_batch([Request("a", k=1), Request("b", domains=["Toys"])])
    assert [one.user_id for one in answers] == ["a", "b"]
    assert [len(one) for one in answers[0].domains.values()] == [1, 1, 1]
    with pytest.raises(InvalidRequest) as refused:
        client.recommend_batch([Request("a"), Request("b", domains=["Bokos"])])
    assert "Bokos" in refused.value.detail


def test_errors_arrive_as_what_they_are(client):
    with pytest.raises(InvalidRequest) as refused:
        client.recommend("u", k=1000, request_id="mine")
    assert ([one.field for one in refused.value.errors], refused.value.request_id) == (["k"], "mine")
    with pytest.raises(NotFound):
        client.similar("Books", "nobody knows")


def test_items_and_users(client, user_id):
    assert client.put_item("Toys", "T5", available=False).known
    assert "T5" not in [item.item_id for item in client.recommend(user_id, k=25).domains["Toys"]]
    assert client.put_item("Toys", "T5").available
    client.send_events([Event(user_id, "Books", "B1")])
    assert client.erase(user_id).erased
    assert client.history(user_id).events == ()
    near = client.similar("Books", "B1", 4, ["Toys", "Games"])
    assert {domain: len(items) for domain, items in near.domains.items()} == {"Toys": 4, "Games": 4}


@pytest.mark.parametrize("odd", ["a/b", "..", ".", "a b?c#d", "%2F", "é", "u/history"])
def test_odd_ids_reach_their_user_and_nobody_else(client, odd):
    client.send_events([Event(odd, "Books", "B1")])
    assert [one.item_id for one in client.history(odd).events] == ["B1"]
    assert client.erase(odd).erased
    assert client.history(odd).events == ()


def test_models_are_switched_and_switched_back(client):
    assert client.models().active == "model-2"
    assert client.activate("model-1").before == "model-2"
    assert client.recommend("u").model_version == "model-1"
    assert client.roll_back().active == "model-2"
    with pytest.raises(Refused):
        client.activate("model-9")
    assert client.is_ready()


def test_a_buffer_s_events_are_all_taken(client, user_id):
    lost = []
    events = [
        [Event(f"{user_id} {n}", "Books", f"B{4 + n % 30}") for n in range(start, start + 200)] for start in range(4)
    ]
    with EventBuffer(client, on_dropped=lost.append) as buffer:
        threads = [threading.Thread(target=lambda own=own: [buffer.add(one) for one in own]) for own in events]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert lost == []
    again = client.send_events([one for own in events for one in own])
    assert (again.accepted, again.duplicates) == (0, 800)


async def test_asyncio(running, user_id):
    async with AsyncClient(str(running.client.base_url), timeout=20) as client:
        await client.send_events([Event(user_id, "Books", "B1")])
        assert (await client.recommend(user_id)).source == "model"


def test_a_service_that_ends_is_not_ready(running, client):
    running.app.draining = True
    try:
        wait_for(lambda: not client.is_ready())
    finally:
        running.app.draining = False
    assert client.is_ready()


def test_a_key_opens_what_its_role_may(parts):
    from service.access.keys import new_key, setting_entry
    from tests.service.running import serve

    key = new_key()
    with serve(**parts, api_keys=setting_entry("web", "read", key)[1], rate_limit_per_s=0.001, rate_burst=3) as running:
        url = str(running.client.base_url)
        with Client(url) as client, pytest.raises(NotAllowed) as refused:
            client.recommend("u")
        assert refused.value.status == 401
        with Client(url, api_key=key, timeout=20) as client:
            assert client.recommend("u").user_id == "u"
            with pytest.raises(NotAllowed) as refused:
                client.roll_back()
            assert refused.value.status == 403
            with pytest.raises(RateLimited) as limited:
                [client.recommend("u") for _ in range(4)]
            assert limited.value.retry_after_s > 20  # beyond the deadline, so handed on instead of waited for
