from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.experiments.analysis.sums import Sums
from service.experiments.analysis.users import Users

NAMES = ("clicks", "impressions", "requests")


def columns(n, seed, far=0.0):
    values = np.random.default_rng(seed).gamma(2.0, 5.0, (3, n)) + far
    return dict(zip(NAMES, values, strict=True))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.integers(0, 40), min_size=1, max_size=6), st.sampled_from([0.0, 1e6]))
def test_merged_chunks_are_numpys_moments_of_all(seed, sizes, far):
    """Also far from zero, where sums of squares lose all digits of the variance."""
    n = sum(sizes) + 2
    everything = columns(n, seed, far)
    edges = np.cumsum([0, *sizes, 2])
    chunks = [Sums.of({name: values[a:b] for name, values in everything.items()}) for a, b in pairwise(edges)]
    merged = sum(chunks[1:], chunks[0])
    values = np.stack(list(everything.values()))
    expected = np.cov(values)
    assert merged.n == n
    np.testing.assert_allclose(merged.mean, values.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        merged.covariance(NAMES), expected, rtol=0, atol=1e-12 * max(np.abs(expected).max(), far)
    )
    assert merged.total("clicks") == pytest.approx(values[0].sum(), rel=1e-12)


def test_as_tea_tasting_has_them():
    everything = columns(50, 1)
    found = Sums.of(everything).aggregates(("requests", "clicks"))
    assert found.count() == 50
    assert found.mean("clicks") == pytest.approx(everything["clicks"].mean())
    assert found.var("requests") == pytest.approx(everything["requests"].var(ddof=1))
    both = np.cov(everything["clicks"], everything["requests"])[0, 1]
    assert found.cov("clicks", "requests") == found.cov("requests", "clicks") == pytest.approx(both)


def test_sums_of_other_columns_do_not_add():
    with pytest.raises(ValueError, match="sums of other columns: b, not a"):
        Sums.of({"a": [1, 2]}) + Sums.of({"b": [1, 2]})


def test_users_are_summed_in_their_arm_only():
    users = Users(("A", "B", "C"), np.array([0, 1, 0, 1]), {"clicks": np.array([1.0, 10, 3, 30])})
    assert {name: sums.total("clicks") for name, sums in users.sums().items()} == {"A": 4, "B": 40, "C": 0}
    chosen = users.sums(which=np.array([True, True, False, False]))
    assert (chosen["A"].n, chosen["A"].total("clicks"), chosen["B"].total("clicks")) == (1, 1, 10)


def test_only_the_columns_that_are_asked_for():
    users = Users(("A", "B"), np.array([0, 1]), {"clicks": np.ones(2), "requests": np.ones(2)})
    assert users.sums(("requests", "elsewhere"))["A"].columns == ("requests",)
    assert users.sums()["A"].columns == ("clicks", "requests")
