"""Repeated work goes on whatever happens to one round of it."""

import asyncio

import pytest
import redis

from service.background import repeated


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    "failure", [redis.ConnectionError("10.0.0.1 refuses"), TimeoutError(), ZeroDivisionError("bug")]
)
async def test_a_round_that_fails_is_logged_once_and_the_next_ones_come(failure, caplog):
    rounds = []

    async def work():
        rounds.append(None)
        if len(rounds) < 5:
            raise failure

    async with repeated("counting", work, pause_s=0):
        await until(lambda: len(rounds) > 8)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("counting")
    assert "10.0.0.1" not in caplog.text


async def test_it_ends_with_the_block():
    rounds = []

    async def work():
        rounds.append(None)
        await asyncio.sleep(20)

    async with repeated("waiting", work, pause_s=0):
        await until(lambda: rounds)
    assert len(rounds) == 1


async def test_it_ends_although_the_work_takes_the_cancellation_for_something_else():
    async def work():
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise TimeoutError from None

    async with asyncio.timeout(10):
        async with repeated("stubborn", work, 0.01):
            await asyncio.sleep(0.05)
