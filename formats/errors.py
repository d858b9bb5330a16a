"""Failures that a person can act on.

WorkFailed          the work cannot be done: a broken file, a full disk, a server that is away (exit code 1)
└── WrongUse        the command was asked for something that makes no sense (exit code 2)

The text is the one line that the command prints, so it names the file or field and, where there is one, the cure.
"""


class WorkFailed(Exception):  # noqa: N818 (it is named after what happened, as in the docstring above)
    """The work failed for a reason outside the program."""


class WrongUse(WorkFailed):
    """The caller asked for something that cannot be meant."""
