"""The set of seen items: it never forgets one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.history.seen import MAX_BYTES, NOTHING_SEEN, WIDTHS, Seen, pack_seen, seen_of, unpack_seen

hashes = st.lists(st.integers(0, 2**64 - 1), max_size=60).map(lambda found: np.array(found, dtype=np.uint64))


def narrowed(items, width):
    return Seen(np.unique(items >> np.uint64(64 - 8 * width)), width)


@settings(deadline=None)
@given(hashes, hashes, st.sampled_from(WIDTHS))
def test_it_finds_exactly_the_items_that_share_their_first_bits(had, others, width):
    catalogue = np.unique(np.concatenate([had, others]))
    found = narrowed(had, width).among(catalogue)
    first = {int(item) >> (64 - 8 * width) for item in had}
    assert found.tolist() == [n for n, item in enumerate(catalogue) if int(item) >> (64 - 8 * width) in first]


@settings(deadline=None)
@given(hashes, st.sampled_from(WIDTHS))
def test_it_comes_out_as_it_went_in(had, width):
    seen = narrowed(had, width)
    packed = pack_seen(seen)
    assert len(packed) == width * len(seen.prefixes)
    assert unpack_seen(packed, width).prefixes.tolist() == seen.prefixes.tolist()


@pytest.mark.parametrize(("count", "width"), [(10, 4), (32_768, 4), (32_800, 3), (200_000, 2)])
def test_a_full_set_gives_up_bits_and_no_items(count, width):
    had = np.random.default_rng(count).integers(0, 2**64, count, dtype=np.uint64)
    seen = seen_of(had)
    assert seen.width == width
    assert len(pack_seen(seen)) <= MAX_BYTES
    assert len(seen.among(np.unique(had))) == len(np.unique(had))


def test_how_often_an_unseen_item_is_hidden_is_what_the_decision_says():
    random = np.random.default_rng(2)
    seen = seen_of(random.integers(0, 2**64, 40_000, dtype=np.uint64))
    others = np.unique(random.integers(0, 2**64, 1_000_000, dtype=np.uint64))
    assert len(seen.among(others)) / len(others) == pytest.approx(40_000 / 2**24, rel=0.1)


def test_nothing_seen_is_found_nowhere():
    assert NOTHING_SEEN.among(np.arange(5, dtype=np.uint64)).tolist() == []
