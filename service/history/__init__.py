"""User histories in Redis."""
