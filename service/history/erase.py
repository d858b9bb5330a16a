"""Everything held on a user, gone at once."""

from redis.exceptions import RedisError

from service.errors import HistoryUnavailable
from service.failures import short_reason
from service.history.keys import keys_of
from service.scripts import Client


async def erase_user(redis: Client, user_id: str) -> bool:
    """Delete all keys with anything of a user, in one command: nobody sees half of it.

    Returns:
        Whether there was anything.

    Raises:
        HistoryUnavailable: no answer; whether it is erased is unknown, and asking again does no harm.
    """
    try:
        return bool(await redis.delete(*keys_of(user_id)))
    except (RedisError, OSError, TimeoutError) as error:
        raise HistoryUnavailable(short_reason(error)) from None
