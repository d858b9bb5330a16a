"""Erasing a user: nothing of them is left anywhere."""

import pytest
import redis
from redis.asyncio import Redis

from service.errors import HistoryUnavailable
from service.history.erase import erase_user
from service.history.write import HistoryRules, HistoryWriter, NewEvent
from tests.service.running import RedisProcess

NOW = 1_700_000_000


def everything(client):
    """All keys and all their values."""
    found = []
    for key in client.scan_iter(count=1000):
        reads = {b"string": client.get, b"hash": client.hgetall, b"zset": lambda key: client.zrange(key, 0, -1)}
        found.append((key, reads[client.type(key)](key)))
    return repr(found)


@pytest.mark.parametrize("user_id", ["erased-one", "}odd-one", "né-one"])
async def test_nothing_of_an_erased_user_is_left_and_all_of_others(redis_url, user_id):
    async with Redis.from_url(redis_url) as connection:
        writer = HistoryWriter(connection, 10_000, HistoryRules(3, 90, keep_repeats=False))
        events = [
            NewEvent(f"{user}-{n}", user, "Books", f"i{n}", NOW + n, n % 2 == 0)
            for user in (user_id, "other")
            for n in range(20)
        ]
        await writer.append(events, NOW)
        with redis.Redis.from_url(redis_url) as client:
            others = {key: client.get(key) for key in client.scan_iter() if b"other" in key}
            assert repr(user_id.encode())[2:-1] in everything(client)
            assert await erase_user(connection, user_id)
            assert repr(user_id.encode())[2:-1] not in everything(client)
            assert {key: client.get(key) for key in client.scan_iter()} == others
        assert not await erase_user(connection, user_id)
        assert await writer.append(events[:1], NOW) == ["taken"]


async def test_a_server_that_is_away_is_told():
    with RedisProcess() as process:
        url = process.url
    async with Redis.from_url(url) as connection:
        with pytest.raises(HistoryUnavailable):
            await erase_user(connection, "u1")
