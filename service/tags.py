"""Hash tags: keys with the same one live on the same node of a Redis Cluster, so that one command may change them together."""


def hash_tag(text: str) -> str:
    """`text` in braces, different for every text and never empty, which would be no tag."""
    # A tag ends at the first closing brace. A text that begins with one is kept apart by a zero character.
    return f"{{\0{text}}}" if text.startswith(("}", "\0")) else f"{{{text}}}"
