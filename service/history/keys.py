"""Where a user's data is in Redis. Every key that holds anything of a user is named here, so that erasing finds all."""

HISTORY = "syncrec:history:"
EVENT_IDS = "syncrec:event-ids:"


def history_key(user_id: str) -> str:
    """Where a user's history is, `service.history.packed`."""
    return f"{HISTORY}{{{_tag(user_id)}}}"


def event_ids_key(user_id: str) -> str:
    """Where the ids of a user's latest events are, so that an event that is sent twice counts once."""
    return f"{EVENT_IDS}{{{_tag(user_id)}}}"


def keys_of(user_id: str) -> tuple[str, ...]:
    """All keys with anything of a user. They share a hash tag: in a cluster, they live together."""
    return history_key(user_id), event_ids_key(user_id)


def _tag(user_id: str) -> str:
    # A tag ends at the first closing brace, and an empty one is none: an id that begins with one is kept apart.
    return f"\0{user_id}" if user_id.startswith(("}", "\0")) else user_id
