"""EventBuffer over real HTTP."""

import logging
import threading

import pytest

from syncrec.client import Client, Event, EventBuffer, buffer
from tests.client.fake import Scripted, problem, wait_for


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(buffer, "FIRST_PAUSE_S", 0.01)


@pytest.fixture
def client(fake):
    with Client(fake.url, timeout=20, retries=0) as client:
        yield client


@pytest.fixture
def dropped():
    return []


@pytest.fixture
def make(client, dropped):
    made = []

    def make(**options):
        made.append(EventBuffer(client, on_dropped=dropped.append, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def event(number=0, domain="Books"):
    return Event("u", domain, f"B{number}")


def ids(events):
    return [one.event_id for one in events]


def sent(fake):
    """Event ids of each call."""
    return [[one["event_id"] for one in asked.body["events"]] for asked in fake.fake.asked]


def test_events_go_out_together_and_in_order_after_a_while(fake, make):
    events = [event(number) for number in range(50)]
    box = make(every_s=0.2)
    for one in events:
        assert box.add(one)
    wait_for(lambda: fake.fake.asked)
    assert sent(fake)[0] == ids(events)


def test_a_full_batch_does_not_wait(fake, make):
    box = make(every_s=3600)
    for number in range(buffer.LARGEST_BATCH):
        box.add(event(number))
    wait_for(lambda: fake.fake.event_ids)
    assert [len(one) for one in sent(fake)] == [buffer.LARGEST_BATCH]


def test_flush_sends_at_once_and_returns_when_it_is_settled(fake, make):
    box = make(every_s=3600)
    events = [event(number) for number in range(2500)]
    for one in events:
        box.add(one)
    assert box.flush()
    assert fake.fake.event_ids == set(ids(events))
    assert max(map(len, sent(fake))) <= buffer.LARGEST_BATCH
    assert box.flush()  # nothing is left: nothing to wait for


def test_flush_says_that_it_was_not_done_in_time(fake, make):
    fake.fake.script.append(Scripted(pause_s=1))
    box = make()
    box.add(event())
    assert not box.flush(timeout_s=0.05)


def test_close_sends_what_is_left(fake, make, dropped):
    box = make(every_s=3600)
    box.add(event())
    box.close()
    assert len(fake.fake.event_ids) == 1
    assert dropped == []


def test_what_fails_is_sent_again_and_counts_once(fake, make, dropped):
    fake.fake.script.extend([problem(503), problem(429), Scripted(None)])
    box = make(every_s=0)
    events = [event(number) for number in range(3)]
    for one in events:
        box.add(one)
    assert box.flush()
    assert fake.fake.event_ids == set(ids(events))
    assert dropped == []


def test_a_full_buffer_drops_the_newest_and_says_which(fake, make, dropped):
    fake.fake.script.append(Scripted(202, {"accepted": 2, "duplicates": 0}, pause_s=1))
    box = make(capacity=2, every_s=3600)
    assert box.add(event(0))
    assert box.add(event(1))
    late = event(2)
    assert not box.add(late)
    assert [one.events for one in dropped] == [(late,)]
    assert dropped[0].reason == "2 events are waiting already"
    box.flush()
    assert box.add(event(3))


def test_rejected_events_are_told_with_the_service_s_reason(make, dropped):
    good, bad = event(), event(domain="Bokos")
    box = make()
    box.add(good)
    box.add(bad)
    box.flush()
    assert [(one.events, one.reason) for one in dropped] == [((bad,), "domain: unknown domain 'Bokos'")]


@pytest.mark.parametrize("status", [401, 422, 500])
def test_a_refused_batch_is_told_and_does_not_block_the_next(fake, make, dropped, status):
    fake.fake.script.append(problem(status))
    box = make()
    first, second = event(0), event(1)
    box.add(first)
    box.flush()
    box.add(second)
    assert box.flush()
    assert [one.events for one in dropped] == [(first,)]
    assert fake.fake.event_ids == {second.event_id}


def test_a_batch_that_is_too_large_is_halved(fake, make, dropped):
    fake.fake.script.extend([problem(413), problem(413)])
    box = make(every_s=3600)
    events = [event(number) for number in range(10)]
    for one in events:
        box.add(one)
    assert box.flush()
    assert fake.fake.event_ids == set(ids(events))
    assert [len(one) for one in sent(fake)] == [10, 5, 2, 8]
    assert dropped == []


def test_one_event_that_is_too_large_is_dropped(fake, make, dropped):
    fake.fake.script.append(problem(413))
    box = make()
    box.add(event())
    assert box.flush()
    assert len(dropped) == 1


def test_close_does_not_wait_for_a_service_that_is_away(make, dropped, fake):
    fake.fake.script.extend([problem(503)] * 1000)
    box = make()
    box.add(event())
    box.close(timeout_s=0.2)
    assert [one.reason for one in dropped] == ["the buffer was closed before they could be sent"]
    assert not box.add(event())
    assert dropped[-1].reason == "the buffer is closed"


def test_what_cannot_be_json_is_refused_to_who_adds_it(make):
    with pytest.raises(ValueError, match="JSON"):
        make().add(Event("u", "Books", "B1", timestamp=float("nan")))


def test_many_threads_lose_and_double_nothing(fake, make, dropped):
    box = make(every_s=0.01)
    events = [[event(number) for number in range(200)] for _ in range(8)]
    threads = [threading.Thread(target=lambda own=own: [box.add(one) for one in own]) for own in events]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    box.close()
    together = [one for call in sent(fake) for one in call]
    assert sorted(together) == sorted(one for own in events for one in ids(own))
    assert dropped == []


def test_a_client_closed_too_early_is_said_and_nothing_hangs(fake, dropped, caplog):
    client = Client(fake.url)
    box = EventBuffer(client, on_dropped=dropped.append, every_s=3600)
    box.add(event())
    client.close()
    box.close()
    assert [one.reason for one in dropped] == ["the thread of the event buffer failed"]
    assert "the thread of the event buffer failed" in caplog.text


def test_an_error_of_the_caller_s_own_does_not_end_the_sending(fake, client, caplog):
    def fails(_):
        raise RuntimeError("ours")

    with EventBuffer(client, on_dropped=fails) as box:
        box.add(event(domain="Bokos"))
        box.flush()
        box.add(event())
    assert len(fake.fake.event_ids) == 1
    assert "on_dropped raised" in caplog.text


def test_by_default_the_log_says_how_many_and_why_but_not_who(client, caplog):
    with caplog.at_level(logging.WARNING), EventBuffer(client) as box:
        box.add(Event("someone", "Bokos", "B1"))
    assert "1 events dropped: domain: unknown domain 'Bokos'" in caplog.text
    assert "someone" not in caplog.text
