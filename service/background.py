"""Work that goes on beside the requests."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.exceptions import RedisError

from service.errors import StoreUnavailable
from service.failures import short_reason
from service.logs import Occasionally

log = logging.getLogger(__name__)
LOG_PERIOD_S = 60.0
CANCEL_PERIOD_S = 0.5


@asynccontextmanager
async def repeated(name: str, work: Callable[[], Awaitable[object]], pause_s: float) -> AsyncIterator[None]:
    """Do `work` again and again until the block ends. When Redis fails it, that is logged once a minute, and it goes on."""
    task = asyncio.get_running_loop().create_task(_repeat(name, work, pause_s))
    try:
        yield
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_PERIOD_S)


async def _repeat(name: str, work: Callable[[], Awaitable[object]], pause_s: float) -> None:
    lines, task = Occasionally(LOG_PERIOD_S), asyncio.current_task()
    assert task is not None
    # A library may take the cancellation for its own time-out; then this must not go on.
    while not task.cancelling():
        try:
            await work()
        except (RedisError, OSError, TimeoutError, StoreUnavailable) as error:
            if lines.now(name) is not None:
                log.warning("%s: Redis fails (%s); trying again", name, short_reason(error))
        except Exception:
            # Whatever it is, the replica must not stop following the others because of it.
            if lines.now(name) is not None:
                log.exception("%s failed; trying again", name)
        await asyncio.sleep(pause_s)
