"""MicroBatcher: greedy, bounded, on time, and nobody gets another's answer."""

import asyncio
import random
import threading
import time

import pytest

from service.errors import DeadlineExceeded, QueueFull
from service.ranking.batcher import MicroBatcher


def in_seconds(seconds):
    return time.monotonic() + seconds


async def answer(batcher, item, deadline):
    return (await batcher.submit(item, deadline)).answer


class Gate:
    """Doubles numbers; the first run waits until it is let through."""

    def __init__(self):
        self.batches, self.threads = [], set()
        self.started, self.open = threading.Event(), threading.Event()

    def run(self, items):
        self.batches.append(list(items))
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.open.wait(10)
        return [2 * item for item in items]

    async def wait_until_started(self):
        await asyncio.to_thread(self.started.wait, 10)


async def test_what_waits_is_taken_together_as_soon_as_the_thread_is_free():
    gate = Gate()
    async with MicroBatcher(gate.run, max_batch=8, max_wait_s=0, queue_limit=100) as batcher:
        first = asyncio.create_task(answer(batcher, 1, in_seconds(10)))
        await gate.wait_until_started()
        others = [asyncio.create_task(answer(batcher, n, in_seconds(10))) for n in range(2, 12)]
        await asyncio.sleep(0.01)
        assert len(batcher) == 10
        gate.open.set()
        assert await asyncio.gather(first, *others) == [2 * n for n in range(1, 12)]
    assert gate.batches == [[1], [2, 3, 4, 5, 6, 7, 8, 9], [10, 11]]
    assert gate.threads - {threading.get_ident()} == gate.threads
    assert len(gate.threads) == 1


async def test_a_full_queue_refuses_at_once():
    gate = Gate()
    async with MicroBatcher(gate.run, max_batch=1, max_wait_s=0, queue_limit=2) as batcher:
        running = asyncio.create_task(answer(batcher, 1, in_seconds(10)))
        await gate.wait_until_started()
        waiting = [asyncio.create_task(answer(batcher, n, in_seconds(10))) for n in (2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await answer(batcher, 4, in_seconds(10))
        gate.open.set()
        assert await asyncio.gather(running, *waiting) == [2, 4, 6]


async def test_who_has_left_or_is_late_is_not_computed():
    gate = Gate()
    async with MicroBatcher(gate.run, max_batch=8, max_wait_s=0, queue_limit=100) as batcher:
        running = asyncio.create_task(answer(batcher, 1, in_seconds(10)))
        await gate.wait_until_started()
        left = asyncio.create_task(answer(batcher, 2, in_seconds(10)))
        late = asyncio.create_task(answer(batcher, 3, in_seconds(0.05)))
        stays = asyncio.create_task(answer(batcher, 4, in_seconds(10)))
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(DeadlineExceeded):
            await late
        gate.open.set()
        assert await asyncio.gather(running, stays) == [2, 8]
    assert gate.batches == [[1], [4]]


async def test_a_deadline_during_the_run_is_kept():
    gate = Gate()
    async with MicroBatcher(gate.run, max_batch=8, max_wait_s=0, queue_limit=100) as batcher:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await answer(batcher, 1, in_seconds(0.05))
        assert time.monotonic() - start < 5
        gate.open.set()
        assert await answer(batcher, 2, in_seconds(10)) == 4


async def test_a_deadline_that_has_passed_is_told():
    async with MicroBatcher(list, max_batch=8, max_wait_s=0, queue_limit=100) as batcher:
        with pytest.raises(DeadlineExceeded):
            await answer(batcher, 1, in_seconds(-1))


async def test_a_failure_goes_to_its_batch_alone_and_the_thread_lives_on():
    def run(items):
        if 13 in items:
            raise RuntimeError("thirteen")
        return list(items)

    async with MicroBatcher(run, max_batch=1, max_wait_s=0, queue_limit=100) as batcher:
        results = await asyncio.gather(
            *(answer(batcher, n, in_seconds(10)) for n in (12, 13, 14)), return_exceptions=True
        )
    assert [results[0], results[2]] == [12, 14]
    assert str(results[1]) == "thirteen"


async def test_with_a_wait_a_batch_fills_up():
    batches = []

    def run(items):
        batches.append(len(items))
        return list(items)

    async with MicroBatcher(run, max_batch=3, max_wait_s=5, queue_limit=100) as batcher:
        await asyncio.gather(*(answer(batcher, n, in_seconds(10)) for n in range(3)))
    assert batches == [3]


async def test_closing_answers_what_is_queued():
    gate = Gate()
    async with MicroBatcher(gate.run, max_batch=1, max_wait_s=0, queue_limit=100) as batcher:
        asked = [asyncio.create_task(answer(batcher, n, in_seconds(10))) for n in range(5)]
        await gate.wait_until_started()
        gate.open.set()
    assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8]


async def test_answers_find_their_requests_whatever_is_cancelled():
    chance = random.Random(1)

    def run(items):
        time.sleep(0.001)
        return [-item for item in items]

    async with MicroBatcher(run, max_batch=7, max_wait_s=0, queue_limit=10_000) as batcher:

        async def ask(n):
            await asyncio.sleep(chance.random() * 0.2)
            try:
                return await answer(batcher, n, in_seconds(chance.choice([0.002, 10])))
            except DeadlineExceeded:
                return None

        asked = [asyncio.create_task(ask(n)) for n in range(500)]
        for task in asked[::5]:
            asyncio.get_running_loop().call_later(chance.random() * 0.2, task.cancel)
        answers = await asyncio.gather(*asked, return_exceptions=True)
    got = [(n, answer) for n, answer in enumerate(answers) if isinstance(answer, int)]
    assert len(got) > 100
    assert all(answer == -n for n, answer in got)


async def test_what_became_of_a_batch_is_told():
    seen = []
    async with MicroBatcher(list, max_batch=8, max_wait_s=0, queue_limit=100, observe=seen.append) as batcher:
        await answer(batcher, 1, in_seconds(10))
    assert [(times.size, times.left, len(times.queued_s)) for times in seen] == [(1, 0, 1)]
    assert seen[0].run_s >= 0


async def test_the_thread_that_runs_batches_also_does_what_is_called():
    gate = Gate()
    gate.open.set()
    async with MicroBatcher(gate.run, max_batch=8, max_wait_s=0, queue_limit=100) as batcher:
        opened_by = await batcher.call(threading.get_ident)
        assert await answer(batcher, 1, in_seconds(10)) == 2
    assert gate.threads == {opened_by}


async def test_a_call_that_fails_fails_its_caller_alone():
    gate = Gate()
    gate.open.set()

    def fail():
        raise ValueError("no such file")

    async with MicroBatcher(gate.run, max_batch=8, max_wait_s=0, queue_limit=100) as batcher:
        with pytest.raises(ValueError, match="no such file"):
            await batcher.call(fail)
        assert await answer(batcher, 1, in_seconds(10)) == 2


async def test_a_call_that_nobody_waits_for_any_more_does_not_hold_the_event_loop():
    started, let_go = threading.Event(), threading.Event()

    def slow():
        started.set()
        assert let_go.wait(10)

    batcher = MicroBatcher(list, max_batch=8, max_wait_s=0, queue_limit=100)
    await batcher.__aenter__()
    call = asyncio.create_task(batcher.call(slow))
    await asyncio.to_thread(started.wait, 10)
    call.cancel()
    closing = asyncio.create_task(batcher.__aexit__())
    await asyncio.sleep(0.05)  # the loop still turns
    assert not closing.done()
    let_go.set()
    await closing
