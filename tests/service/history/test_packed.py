"""The bytes that Redis holds."""

from hashlib import blake2b

import numpy as np
import pytest

from formats.event_ties import item_hashes
from service.history.packed import EVENT, VERSION, pack, unpack
from service.history.seen import seen_of

WITH_SEEN = pack(np.zeros(2, dtype=EVENT), seen_of(np.arange(3, dtype=np.uint64) << np.uint64(60)))
CUT_OFF = [WITH_SEEN[:end] for end in (1, 5, 9, len(WITH_SEEN) - 1)]


def events(count):
    made = np.zeros(count, dtype=EVENT)
    made["item_hash"] = np.random.default_rng(1).integers(0, 2**64, count, dtype=np.uint64)
    made["timestamp"] = np.linspace(0, 2**32 - 1, count)
    return made


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_events_come_out_as_they_went_in_at_12_bytes_each(count):
    packed = pack(events(count))
    assert len(packed) == 1 + 12 * count
    np.testing.assert_array_equal(unpack(packed).events, events(count))


def test_the_layout_is_fixed():
    one = np.array([(0x0102030405060708, 0x0A0B0C0D)], dtype=EVENT)
    assert pack(one) == b"\x01" + bytes([8, 7, 6, 5, 4, 3, 2, 1]) + bytes([0x0D, 0x0C, 0x0B, 0x0A])


def test_seen_items_stand_before_the_events():
    one = np.array([(0x0102030405060708, 0x0A0B0C0D)], dtype=EVENT)
    value = pack(one, seen_of(np.array([0xA1A2A3A4A5A6A7A8], dtype=np.uint64)))
    assert value == b"\x02\x04" + bytes([4, 0, 0, 0]) + bytes([0xA4, 0xA3, 0xA2, 0xA1]) + pack(one)[1:]
    history = unpack(value)
    np.testing.assert_array_equal(history.events, one)
    assert history.seen.prefixes.tolist() == [0xA1A2A3A4]


@pytest.mark.parametrize(
    "value", [b"", b"\x02" + bytes(12), VERSION + bytes(11), VERSION + bytes(13), b"text", *CUT_OFF]
)
def test_what_is_no_history_is_refused(value):
    with pytest.raises(ValueError, match="not a packed history"):
        unpack(value)


def test_the_hash_of_an_item_never_changes():
    # Histories in Redis outlive releases: these bytes are a promise.
    assert item_hashes([("Books", "B1")]).tolist() == [
        int.from_bytes(blake2b(b"5:BooksB1", digest_size=8).digest(), "little")
    ]
