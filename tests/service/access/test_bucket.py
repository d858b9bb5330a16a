"""The token bucket, under times that hypothesis makes up."""

import math

from hypothesis import given
from hypothesis import strategies as st

from service.access.bucket import TokenBucket

RATES = st.floats(0.01, 1000)
BURSTS = st.integers(1, 50)
STEPS = st.lists(st.floats(0, 5), min_size=1, max_size=200)


def passed(bucket, steps, start=1000.0):
    """Times at which a request passed; one asks after each step."""
    now, times = start, []
    for step in steps:
        now += step
        if bucket.take(now) == 0:
            times.append(now)
    return times


@given(RATES, BURSTS, STEPS)
def test_in_no_window_more_than_burst_and_rate_times_its_length_pass(rate, burst, steps):
    times = passed(TokenBucket(rate, burst), steps)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - start) + 1e-6


@given(RATES, BURSTS)
def test_at_once_exactly_the_burst_passes(rate, burst):
    assert len(passed(TokenBucket(rate, burst), [0.0] * (burst + 10))) == burst


@given(RATES, BURSTS, STEPS)
def test_after_the_seconds_it_says_a_request_passes_and_a_second_before_none(rate, burst, steps):
    bucket = TokenBucket(rate, burst)
    passed(bucket, steps)
    now = 1000.0 + sum(steps)
    while (wait_s := bucket.take(now)) == 0:
        pass
    assert isinstance(wait_s, int)
    assert wait_s >= 1
    if wait_s > 1:
        assert bucket.take(now + wait_s - 1 - 1e-6) > 0
    assert bucket.take(now + wait_s + 1e-6) == 0


@given(RATES, BURSTS, STEPS)
def test_a_rest_fills_it_up_and_not_further(rate, burst, steps):
    bucket = TokenBucket(rate, burst)
    passed(bucket, steps)
    rested = 1000.0 + sum(steps) + burst / rate * 1.001
    assert len(passed(bucket, [0.0] * (burst + 10), start=rested)) == burst


@given(RATES, BURSTS, st.floats(1, 1e6))
def test_a_clock_that_goes_back_gives_nothing_away_and_locks_nobody_out(rate, burst, back):
    bucket = TokenBucket(rate, burst)
    assert len(passed(bucket, [0.0] * (burst + 5), start=1e6)) == burst
    assert bucket.take(1e6 - back) > 0
    assert bucket.take(1e6 - back + 1.001 / rate + 1e-6) == 0


def test_the_seconds_are_rounded_up():
    bucket = TokenBucket(0.4, 1)
    assert bucket.take(0.0) == 0
    assert bucket.take(0.0) == math.ceil(1 / 0.4)
    assert bucket.take(2.0) == 1
