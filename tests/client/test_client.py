"""Both clients over real HTTP, against a service of a few lines: what is sent, what comes back, what happens when it breaks."""

import asyncio
import gzip
import inspect
import json
import socket
import threading
import time

import pytest

from syncrec.client import (
    AsyncClient,
    Client,
    Event,
    InvalidRequest,
    NotAllowed,
    NotReachable,
    RateLimited,
    Request,
    TimedOut,
    Unavailable,
    UnreadableAnswer,
    attempts,
)
from tests.client.fake import ANSWER, Scripted, problem, wait_for


class _AsyncAsSync:
    """An AsyncClient behind the same methods as Client's, so that one test speaks of both."""

    def __init__(self, *arguments, **options):
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*arguments, **options)

    def __getattr__(self, name):
        method = getattr(self._client, name)
        return lambda *arguments, **options: self._runner.run(method(*arguments, **options))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._runner.run(self._client.aclose())
        self._runner.close()


@pytest.fixture(params=[Client, _AsyncAsSync], ids=["sync", "async"])
def make(request):
    return request.param


@pytest.fixture
def client(fake, make):
    with make(fake.url, timeout=20, api_key="k") as client:
        yield client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(attempts, "FIRST_PAUSE_S", 0.001)


def test_a_recommendation_is_typed_and_says_what_was_asked(fake, client):
    answer = client.recommend("u7", domains=["Books", "Toys"], k=3, exclude_seen=False)
    assert (answer.user_id, answer.source, answer.missing_ids) == ("u7", "model", ("B9",))
    assert [item.title for item in answer.domains["Books"]] == ["Dune"]
    assert answer.domains["Toys"] == ()
    assert answer.experiment.variant == "b"
    [asked] = fake.fake.asked
    assert asked.body == {"user_id": "u7", "domains": ["Books", "Toys"], "k": 3, "exclude_seen": False}
    assert asked.headers["authorization"] == "Bearer k"
    assert asked.headers["content-type"] == "application/json"
    assert 0 < int(asked.headers["x-request-timeout-ms"]) <= 20_000


def test_an_unknown_option_is_an_error_of_the_caller(client):
    with pytest.raises(TypeError, match="explian"):
        client.recommend("u", explian=True)


def test_a_batch_comes_back_in_order(client):
    assert [one.user_id for one in client.recommend_batch([Request("b"), Request("a", k=1)])] == ["b", "a"]


def test_events_are_accepted_once_and_the_wrong_ones_are_named(client):
    events = [Event("u", "Books", "B1"), Event("u", "Bokos", "B2"), Event("u", "Toys", "T1", event="click")]
    taken = client.send_events(events)
    assert (taken.accepted, taken.duplicates, [one.index for one in taken.rejected]) == (2, 0, [1])
    assert client.send_events(events).duplicates == 2


def test_the_other_routes(fake, client):
    assert client.similar("Books", "B/1", 5, ["Toys"]).domains["Books"][0].item_id == "B1"
    assert client.history("u").older_items == 3
    assert client.erase("..").erased
    assert client.put_item("Books", "B1", available=False).categories is None
    assert client.put_item("Books", "B1", categories=("new",)).categories == ("new",)
    assert [(one.model_version, one.state) for one in client.models().models] == [("m1", "active"), ("m0", "previous")]
    assert client.activate("m0").before == "m1"
    assert client.roll_back().active == "m0"
    assert client.is_ready() is True
    assert [(one.method, one.path) for one in fake.fake.asked] == [
        ("GET", "/items/Books/B%2F1/similar"),
        ("GET", "/users/u/history"),
        ("DELETE", "/users/%2E%2E"),
        ("PUT", "/items/Books/B1"),
        ("PUT", "/items/Books/B1"),
        ("GET", "/models"),
        ("POST", "/models/m0/activate"),
        ("POST", "/models/rollback"),
        ("GET", "/readyz"),
    ]
    assert [fake.fake.asked[index].body for index in (3, 4)] == [
        {"available": False, "categories": None},
        {"available": True, "categories": ["new"]},
    ]


def test_one_request_id_for_all_attempts(fake, client):
    fake.fake.script.extend([problem(503), problem(502)])
    client.recommend("u", request_id="mine")
    assert [one.headers["x-request-id"] for one in fake.fake.asked] == ["mine"] * 3


def test_events_that_are_tried_again_keep_their_ids(fake, client):
    fake.fake.script.extend([problem(503), Scripted(None)])
    client.send_events([Event("u", "Books", "B1")])
    assert len({one.body["events"][0]["event_id"] for one in fake.fake.asked}) == 1
    assert len(fake.fake.asked) == 3


def test_a_connection_that_breaks_is_tried_again(fake, client):
    fake.fake.script.append(Scripted(None))
    assert client.recommend("u").user_id == "u"
    assert len(fake.fake.asked) == 2


def test_a_swap_is_sent_once_even_if_it_breaks(fake, client):
    fake.fake.script.append(Scripted(None))
    with pytest.raises(NotReachable):
        client.roll_back()
    assert len(fake.fake.asked) == 1


def test_retry_after_is_kept_to(fake, client):
    fake.fake.script.append(Scripted(429, headers={"retry-after": "1"}))
    start = time.monotonic()
    client.recommend("u")
    assert time.monotonic() - start >= 1


def test_retry_after_beyond_the_deadline_is_handed_to_the_caller(fake, client):
    fake.fake.script.append(Scripted(429, headers={"retry-after": "60"}))
    with pytest.raises(RateLimited) as refused:
        client.recommend("u")
    assert (refused.value.retry_after_s, len(fake.fake.asked)) == (60, 1)


def test_a_wrong_request_names_its_fields(fake, client):
    fake.fake.script.append(problem(422, errors=[{"field": "k", "detail": "less than 100"}]))
    with pytest.raises(InvalidRequest) as refused:
        client.recommend("u", k=1000)
    assert [(one.field, one.detail) for one in refused.value.errors] == [("k", "less than 100")]
    assert len(fake.fake.asked) == 1


def test_a_service_that_is_silent_is_left_at_the_deadline(fake, client):
    fake.fake.script.append(Scripted(pause_s=5))
    with pytest.raises(TimedOut, match=r"no answer within 0\.2 s"):
        client.recommend("u", timeout=0.2)


def test_an_answer_that_trickles_is_left_at_the_deadline(fake, client):
    """Each piece comes in time; only the whole does not."""
    fake.fake.script.append(Scripted(body=ANSWER, pieces=100, pause_s=0.1))
    with pytest.raises(TimedOut):
        client.recommend("u", timeout=0.5)


def test_a_deadline_is_for_all_attempts_together(fake, client):
    fake.fake.script.extend([problem(503), Scripted(pause_s=5)])
    with pytest.raises(TimedOut) as late:
        client.recommend("u", timeout=0.5)
    assert late.value.attempts == 2


def test_nobody_listening_is_not_reachable(make):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with make(f"http://127.0.0.1:{port}", timeout=20) as client:
        with pytest.raises(NotReachable) as refused:
            client.recommend("u")
        assert refused.value.attempts == 3
        assert client.is_ready() is False


def test_a_service_that_drains_is_not_ready_and_a_wrong_key_is_no_answer_to_that(fake, client):
    fake.fake.script.append(problem(503))
    assert client.is_ready() is False
    fake.fake.script.append(problem(401))
    with pytest.raises(NotAllowed):
        client.is_ready()


def test_the_page_of_a_proxy_is_not_an_answer(fake, client):
    fake.fake.script.append(Scripted(200, b"<html>please log in</html>"))
    with pytest.raises(UnreadableAnswer):
        client.recommend("u")


def test_a_redirect_is_not_followed_with_the_key(fake, client):
    fake.fake.script.append(Scripted(302, headers={"location": "http://elsewhere.invalid/"}))
    with pytest.raises(Exception, match="302"):
        client.recommend("u")
    assert len(fake.fake.asked) == 1


def test_a_compressed_answer_is_read(fake, client):
    packed = gzip.compress(json.dumps(ANSWER).encode())
    fake.fake.script.append(Scripted(body=packed, headers={"content-encoding": "gzip"}))
    assert client.recommend("u").recommendation_id == ANSWER["recommendation_id"]


def test_the_key_is_in_no_text_of_an_error(fake, make):
    with make(fake.url, api_key="very-secret", timeout=1, retries=0) as client:
        fake.fake.script.append(problem(503))
        with pytest.raises(Unavailable) as refused:
            client.recommend("u")
        assert "very-secret" not in repr(refused.value) + repr(vars(refused.value)) + repr(client)


def test_a_url_that_is_none_is_not_called_a_failure_of_the_network(make):
    with make("recommend.internal:8000", timeout=1) as client, pytest.raises(Exception) as error:  # noqa: PT011
        client.recommend("u")
    assert not isinstance(error.value, NotReachable)


def test_one_client_serves_many_threads(fake):
    with Client(fake.url, timeout=20) as client:
        answers = []
        threads = [
            threading.Thread(target=lambda name=f"u{n}": answers.append((name, client.recommend(name).user_id)))
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 16
    assert all(asked == answered for asked, answered in answers)


async def test_a_cancelled_call_leaves_nothing_to_the_next(fake):
    """The answer to the first, which comes late, must not be taken for the second's."""
    async with AsyncClient(fake.url, timeout=20) as client:
        fake.fake.script.append(Scripted(body={**ANSWER, "user_id": "first"}, pause_s=0.3))
        call = asyncio.create_task(client.recommend("first"))
        await asyncio.to_thread(wait_for, lambda: fake.fake.asked)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert [(await client.recommend(f"u{n}")).user_id for n in range(5)] == [f"u{n}" for n in range(5)]


def test_both_clients_have_the_same_methods_with_the_same_arguments():
    def methods(kind):
        return {
            name: [str(one) for one in inspect.signature(method).parameters.values()]
            for name, method in vars(kind).items()
            if inspect.isfunction(method) and not name.startswith("_") and name not in {"close", "aclose"}
        }

    assert methods(Client) == methods(AsyncClient)
