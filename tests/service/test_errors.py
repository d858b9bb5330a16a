"""The error tree: drawn whole in its docstring, and each error has a status."""

import inspect
import re

import pytest

from service import errors
from service.errors import FieldError, InvalidRequest, ServiceError, UnknownDomain
from service.http.problems import STATUS, encode_error, status_of


def subclasses(kind):
    for child in kind.__subclasses__():
        yield child
        yield from subclasses(child)


ALL = sorted(set(subclasses(ServiceError)), key=lambda kind: kind.__name__)


def made(kind):
    """An instance, with something for each argument."""
    given = {"errors": [FieldError("k", "odd")], "domain": "x", "known": ["a"], "field": "domains[0]", "limit_bytes": 9}
    if "__init__" not in vars(kind):
        return kind("reason")
    names = list(inspect.signature(kind.__init__).parameters)[1:]
    return kind(**{name: given.get(name, "reason") for name in names})


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_has_a_status_and_a_problem(kind):
    status, body = encode_error(made(kind), "r1")
    assert 400 <= status <= 599
    assert b'"request_id":"r1"' in body


def test_the_docstring_draws_the_whole_tree():
    drawn = re.findall(r"^[│ ]*[├└]── (\w+)", errors.__doc__, flags=re.MULTILINE)
    assert sorted(drawn) == [kind.__name__ for kind in ALL]


def test_the_nearest_ancestor_decides():
    assert UnknownDomain not in STATUS
    assert status_of(UnknownDomain("x", ["a"], "domains[0]")) == STATUS[InvalidRequest]
