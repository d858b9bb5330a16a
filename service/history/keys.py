"""Where a user's data is in Redis. Every key that holds anything of a user is named here, so that erasing finds all."""

from service.tags import hash_tag

HISTORY = "syncrec:history:"
EVENT_IDS = "syncrec:event-ids:"


def history_key(user_id: str) -> str:
    """Where a user's history is, `service.history.packed`."""
    return HISTORY + hash_tag(user_id)


def event_ids_key(user_id: str) -> str:
    """Where the ids of a user's latest events are, so that an event that is sent twice counts once."""
    return EVENT_IDS + hash_tag(user_id)


def keys_of(user_id: str) -> tuple[str, ...]:
    """All keys with anything of a user; they share a hash tag."""
    return history_key(user_id), event_ids_key(user_id)
