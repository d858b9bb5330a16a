from dataclasses import FrozenInstanceError, replace

import pytest

from model.config import SyNCRecConfig

GOOD = SyNCRecConfig((3, 2), max_history=5, dim=8, heads=2, layers=1, experts=5, single_experts=1, dropout=0.5)


def test_items_and_domains_follow_from_the_catalogue():
    assert (GOOD.items, GOOD.domains) == (3 + 2, 2)


def test_it_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        GOOD.dim = 4


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("items_per_domain", ()),
        ("items_per_domain", (3, 0)),
        ("max_history", 0),
        ("dim", 0),
        ("heads", 0),
        ("heads", 3),
        ("layers", 0),
        ("single_experts", 0),
        ("single_experts", 5),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_a_size_that_makes_no_network_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"^{field}:"):
        replace(GOOD, **{field: value})
