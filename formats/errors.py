"""Failures that a person can act on.

WorkFailed          the work cannot be done: a broken file, a full disk, a server that is away (exit code 1)
├── WrongUse        the command was asked for something that makes no sense (exit code 2)
└── StoppedByUser   Ctrl-C, after what was done so far was saved (exit code 1)

The text is the one line that the command prints, so it names the file or field and, where there is one, the cure.
"""


class WorkFailed(Exception):  # noqa: N818 (it is named after what happened, as in the docstring above)
    """The work failed for a reason outside the program."""


class WrongUse(WorkFailed):
    """The caller asked for something that cannot be meant."""


class StoppedByUser(WorkFailed):
    """The user stopped the work; the text says what was saved and how to go on."""
