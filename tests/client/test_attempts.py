"""The rules of one call, without any network."""

import contextlib
import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncrec.client import asking
from syncrec.client.attempts import LONGEST_PAUSE_S, Attempts, Broken, Reply, RetryBudget
from syncrec.client.errors import (
    InvalidRequest,
    NotAllowed,
    NotFound,
    NotReachable,
    RateLimited,
    Refused,
    TimedOut,
    Unavailable,
    UnreadableAnswer,
)

READ = asking.history("u")


def attempts(call=READ, timeout_s=60, retries=2, budget=None, request_id=None):
    return Attempts(call, timeout_s=timeout_s, retries=retries, budget=budget or RetryBudget(), request_id=request_id)


def reply(status, body=b"", **headers):
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


@pytest.mark.parametrize("outcome", [*(reply(status) for status in (429, 502, 503, 504)), Broken("refused")])
def test_what_may_pass_is_tried_again_until_the_retries_are_used(outcome):
    call = attempts(retries=2)
    for number in (1, 2):
        call.start()
        assert 0 <= call.after(outcome) <= LONGEST_PAUSE_S, number
    call.start()
    with pytest.raises((Refused, NotReachable)) as last:
        call.after(outcome)
    assert last.value.attempts == 3


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 413, 422, 500, 501])
def test_what_will_not_pass_is_not_tried_again(status):
    call = attempts()
    call.start()
    with pytest.raises(Refused) as refused:
        call.after(reply(status))
    assert (refused.value.status, refused.value.attempts) == (status, 1)


@pytest.mark.parametrize("call", [asking.activate("m1"), asking.roll_back()])
@pytest.mark.parametrize("outcome", [reply(503), reply(429), Broken("refused")])
def test_a_swap_of_models_is_never_tried_again(call, outcome):
    started = attempts(call)
    started.start()
    with pytest.raises((Refused, NotReachable)):
        started.after(outcome)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, NotAllowed),
        (403, NotAllowed),
        (404, NotFound),
        (413, InvalidRequest),
        (415, InvalidRequest),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, Refused),
        (502, Unavailable),
        (503, Unavailable),
        (504, Unavailable),
    ],
)
def test_every_status_has_its_error(status, kind):
    call = attempts(retries=0)
    call.start()
    with pytest.raises(Refused) as refused:
        call.after(reply(status))
    assert type(refused.value) is kind


def test_an_error_has_what_the_problem_document_says():
    call = attempts(request_id="mine")
    call.start()
    body = (
        b'{"type":"urn:syncrec:problem:unknown-domain","title":"t","status":422,"detail":"unknown domain",'
        b'"request_id":"theirs","errors":[{"field":"domains[0]","detail":"unknown domain","new":1}],"new":1}'
    )
    with pytest.raises(InvalidRequest) as refused:
        call.after(reply(422, body))
    error = refused.value
    assert (error.status, error.type) == (422, "urn:syncrec:problem:unknown-domain")
    assert (error.detail, error.request_id) == ("unknown domain", "theirs")
    assert [(one.field, one.detail) for one in error.errors] == [("domains[0]", "unknown domain")]
    assert str(error) == "422: unknown domain (request theirs)"


@pytest.mark.parametrize("body", [b"<html>", b"", b"[]", b'"x"', b"\xff", b'{"errors": 3}', b'{"errors": [3]}'])
def test_an_error_that_is_no_problem_document_still_has_its_status(body):
    call = attempts(retries=0, request_id="mine")
    call.start()
    with pytest.raises(Unavailable) as refused:
        call.after(reply(502, body))
    assert (refused.value.status, refused.value.request_id, refused.value.errors) == (502, "mine", ())


def test_it_waits_at_least_as_long_as_the_service_asks():
    call = attempts()
    call.start()
    assert 7 <= call.after(reply(429, retry_after="7")) <= 7 + LONGEST_PAUSE_S


def test_a_date_to_come_back_at_is_understood():
    call = attempts()
    call.start()
    # A date has whole seconds, so up to one may be lost.
    assert 8 <= call.after(reply(503, retry_after=formatdate(time.time() + 10, usegmt=True))) <= 10 + LONGEST_PAUSE_S


@pytest.mark.parametrize("given", ["soon", "-1", "1.5", "", "²"])
def test_a_wish_that_is_none_is_none(given):
    call = attempts()
    call.start()
    assert call.after(reply(503, retry_after=given)) <= LONGEST_PAUSE_S


def test_it_does_not_wait_beyond_the_deadline_but_says_when_to_come_back():
    call = attempts(timeout_s=5)
    call.start()
    with pytest.raises(RateLimited) as refused:
        call.after(reply(429, retry_after="6"))
    assert (refused.value.retry_after_s, refused.value.attempts) == (6, 1)


def test_no_attempt_begins_after_the_deadline():
    with pytest.raises(TimedOut, match="no answer within 0 s"):
        attempts(timeout_s=0).start()


def test_an_attempt_that_ran_out_of_time_is_a_timeout_and_a_broken_one_is_not():
    call = attempts(retries=0)
    call.start()
    with pytest.raises(TimedOut):
        call.after(Broken("read", timed_out=True))
    call = attempts(retries=0)
    call.start()
    with pytest.raises(NotReachable, match="refused"):
        call.after(Broken("refused"))


def test_the_service_is_told_the_time_that_is_left_and_the_id():
    call = attempts(timeout_s=60, request_id="mine")
    first = call.start()
    call.after(reply(503))
    time.sleep(0.005)
    second = call.start()
    assert first.headers["x-request-id"] == second.headers["x-request-id"] == "mine"
    assert 0 < int(second.headers["x-request-timeout-ms"]) < int(first.headers["x-request-timeout-ms"]) <= 60_000
    assert second.timeout_s < first.timeout_s <= 60


def test_an_id_is_made_and_stays_the_same_for_every_attempt():
    one, other = attempts(), attempts()
    assert one.start().headers["x-request-id"] == one.start().headers["x-request-id"] == one.request_id
    assert one.request_id != other.request_id


@pytest.mark.parametrize("bad", ["", "a\r\nx: y", "é", "x" * 129])
def test_an_id_that_is_no_header_is_refused(bad):
    with pytest.raises(ValueError, match="request_id"):
        attempts(request_id=bad)


@pytest.mark.parametrize(
    ("body", "says"), [(b"<html>", "not JSON"), (b"{}", "user_id is missing"), (b"\xff", "not JSON")]
)
def test_a_good_status_with_a_bad_body_is_an_error_of_its_own(body, says):
    call = attempts()
    call.start()
    assert call.after(reply(200, body)) is None
    with pytest.raises(UnreadableAnswer, match=says):
        call.answer(reply(200, body))


@given(st.lists(st.booleans(), max_size=400))
def test_retries_never_exceed_ten_and_a_tenth_of_the_calls(calls_and_retries):
    budget, calls, retries = RetryBudget(), 0, 0
    for is_call in calls_and_retries:
        if is_call:
            budget.count_call()
            calls += 1
        else:
            retries += budget.spend()
        assert retries <= RetryBudget.FULL + RetryBudget.PER_CALL * calls


def test_a_service_that_stays_down_is_asked_hardly_more_often_than_the_callers_ask():
    budget, sent = RetryBudget(), 0
    for _ in range(1000):
        sent += _attempts_until_it_fails(attempts(budget=budget))
    assert sent <= 1000 + RetryBudget.FULL + RetryBudget.PER_CALL * 1000


def test_the_budget_fills_again():
    budget = RetryBudget()
    while budget.spend():
        pass
    for _ in range(11):  # one more than ten, for tenths are not exact in binary
        budget.count_call()
    assert budget.spend()
    assert not budget.spend()


def _attempts_until_it_fails(call):
    number = 0
    with contextlib.suppress(NotReachable):
        while True:
            call.start()
            number += 1
            call.after(Broken("refused"))
    return number
