"""What crosses from offline to online: the event table, the history encoding and the bundle."""
