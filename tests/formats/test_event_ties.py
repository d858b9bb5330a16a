from hashlib import blake2b

import numpy as np

from formats.event_ties import item_hashes, tie_hashes, user_hashes

BITS = (1 << 64) - 1


def splitmix(bits):
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & BITS
    return bits ^ (bits >> 31)


def blake(text):
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def test_the_hash_is_the_documented_one_in_plain_integers():
    wanted = splitmix(blake("ü1") ^ blake("5:Booksi9") ^ splitmix(-3 & BITS))
    found = tie_hashes(user_hashes(["ü1"]), item_hashes([("Books", "i9")]), np.array([-3]))
    assert found.tolist() == [wanted]


def test_domain_and_item_id_are_kept_apart():
    one, other = item_hashes([("a", "bc"), ("ab", "c")])
    assert one != other


def test_the_order_of_a_tie_depends_on_user_and_time_not_on_the_ids():
    users, times = np.meshgrid(user_hashes(map(str, range(50))), np.arange(40))
    low, high = item_hashes([("d", "1"), ("d", "2")])
    low_first = tie_hashes(users.ravel(), np.full(2000, low), times.ravel()) < tie_hashes(
        users.ravel(), np.full(2000, high), times.ravel()
    )
    # 2,000 fair coins: 1,000 heads within four standard deviations.
    assert abs(np.count_nonzero(low_first) - 1000) < 4 * np.sqrt(2000 / 4)
