import numpy as np
import pytest

from training.altered_cases import of_another_user, reordered_ties, spliced, with_other_future
from training.cases import Cases

SIZES = (5, 7)  # items 1-5 and 6-12
ITEM_DOMAIN = np.repeat([0, 1, 2], [1, 5, 7])


def cases_of(users, predicted=1, ties=1):
    """Users with these items each, the last `predicted` of them cases; so many events in a row share their time."""
    lengths = np.array([len(items) for items in users])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(lengths.sum()) - np.repeat(offsets[:-1], lengths)
    is_case = place >= np.repeat(lengths, lengths) - predicted
    item = np.concatenate([np.array(items) for items in users])
    user = np.repeat(np.arange(len(users)), lengths)[is_case]
    return Cases(
        item_index=item.astype(np.int32),
        domain=ITEM_DOMAIN[item].astype(np.int16),
        timestamp=1000 * np.repeat(np.arange(len(users)), lengths) + place // ties,
        user_offsets=offsets,
        user=user,
        start=offsets[user],
        position=np.flatnonzero(is_case),
    )


def random_cases(seed, ties=1):
    random = np.random.default_rng(seed)
    return cases_of([random.integers(1, 13, random.integers(4, 20)) for _ in range(30)], predicted=3, ties=ties)


@pytest.mark.parametrize("seed", range(5))
def test_every_case_is_paired_once_with_one_of_another_user(seed):
    cases = random_cases(seed)
    mine, others = of_another_user(cases, np.random.default_rng(seed))
    assert sorted(mine.tolist()) == sorted(others.tolist()) == list(range(len(cases)))
    assert (cases.user[mine] != cases.user[others]).all()


def test_a_user_with_more_than_half_of_the_cases_keeps_some_unpaired():
    cases = cases_of([[1] * 4, [2], [3]], predicted=4)
    mine, others = of_another_user(cases, np.random.default_rng(0))
    assert len(mine) == 4  # two of the large user's with both of the others', and back
    assert (cases.user[mine] != cases.user[others]).all()


def test_pairs_are_drawn():
    cases = random_cases(0)
    one, other = (dict(zip(*of_another_user(cases, np.random.default_rng(seed)), strict=True)) for seed in (0, 1))
    assert one != other


def test_spliced_cases_have_the_history_of_one_and_the_target_and_time_of_others():
    cases = cases_of([[1, 2, 3], [6, 7, 8, 9]], predicted=2)  # cases: 2 and 3, then 8 and 9
    found = spliced(cases, history_of=np.array([3, 0]), target_of=np.array([0, 2]), time_of=np.array([1, 3]))
    assert [history.tolist() for history in found.histories()] == [[6, 7, 8], [1]]
    assert found.target.tolist() == [2, 8]
    assert found.target_domain.tolist() == [1, 2]
    # Own times: 6 7 8 9 at 1000 to 1003; 1 2 3 at 0 to 2. The new times: of 3, which is 2, and of 9, which is 1003.
    assert found.timestamp.tolist() == [-1, 0, 1, 2, 1002, 1003]
    assert found.user.tolist() == [0, 1]
    assert found.user_offsets.tolist() == [0, 4, 6]


def test_a_case_spliced_with_itself_is_as_it_was():
    cases = random_cases(0)
    every = np.arange(len(cases))
    found = spliced(cases, every, every, every)
    assert [history.tolist() for history in found.histories()] == [history.tolist() for history in cases.histories()]
    np.testing.assert_array_equal(found.target, cases.target)
    for case in range(len(cases)):
        own = slice(cases.start[case], cases.position[case] + 1)
        new = slice(found.start[case], found.position[case] + 1)
        np.testing.assert_array_equal(found.timestamp[new], cases.timestamp[own])
        np.testing.assert_array_equal(found.domain[new], cases.domain[own])


def test_another_future_leaves_the_past_and_the_time_of_the_case():
    cases = random_cases(1)
    found = with_other_future(cases, ITEM_DOMAIN, np.random.default_rng(0))
    for case in range(len(cases)):
        before, new = slice(cases.start[case], cases.position[case]), slice(found.start[case], found.position[case])
        np.testing.assert_array_equal(found.item_index[new], cases.item_index[before])
        np.testing.assert_array_equal(found.domain[new], cases.domain[before])
        np.testing.assert_array_equal(found.timestamp[new], cases.timestamp[before])
        assert found.timestamp[found.position[case]] == cases.timestamp[cases.position[case]]


def test_another_future_has_as_many_events_of_known_items_and_later_times():
    cases = random_cases(1)
    found = with_other_future(cases, ITEM_DOMAIN, np.random.default_rng(0))
    changed = 0
    for case in range(len(cases)):
        end = cases.user_offsets[cases.user[case] + 1]
        after, new = slice(cases.position[case], end), slice(found.position[case], found.user_offsets[case + 1])
        assert new.stop - new.start == after.stop - after.start
        changed += np.count_nonzero(found.item_index[new] != cases.item_index[after])
        assert (found.timestamp[new] >= found.timestamp[new.start]).all()
        np.testing.assert_array_equal(found.domain[new], ITEM_DOMAIN[found.item_index[new]])
    assert changed > len(cases)
    assert found.item_index.min() >= 0
    assert found.item_index.max() <= 12


def multiset(cases, case):
    own = slice(cases.start[case], cases.position[case])
    return sorted(zip(cases.timestamp[own].tolist(), cases.item_index[own].tolist(), strict=True))


def test_reordered_ties_keep_every_event_at_its_time_and_every_target():
    cases = random_cases(2, ties=4)
    found = reordered_ties(cases, np.random.default_rng(0))
    np.testing.assert_array_equal(found.target, cases.target)
    np.testing.assert_array_equal(found.target_domain, cases.target_domain)
    np.testing.assert_array_equal(found.timestamp[found.position], cases.timestamp[cases.position])
    for begin, end in zip(cases.user_offsets[:-1], cases.user_offsets[1:], strict=True):
        whole = slice(begin, end)
        assert (np.diff(found.timestamp[whole]) >= 0).all()
        for before, after in ((cases, found), (found, cases)):
            pairs = [sorted(zip(one.timestamp[whole], one.item_index[whole], strict=True)) for one in (before, after)]
            assert pairs[0] == pairs[1]
    assert (found.item_index != cases.item_index).any()


def test_what_is_history_stays_history():
    """A tie that the split cuts through stays cut: no case may turn into context, nor the other way round."""
    cases = random_cases(3, ties=30)  # all events of a user share one time
    found = reordered_ties(cases, np.random.default_rng(0))
    for user, end in enumerate(cases.user_offsets[1:]):
        own = found.position[found.user == user]
        assert sorted(own.tolist()) == [end - 3, end - 2, end - 1]


def test_without_ties_nothing_moves():
    cases = random_cases(4)
    found = reordered_ties(cases, np.random.default_rng(0))
    np.testing.assert_array_equal(found.item_index, cases.item_index)
    np.testing.assert_array_equal(found.position, cases.position)


def test_every_order_of_a_tie_is_equally_likely():
    cases = cases_of([[1, 2, 3, 4]] * 600, ties=3)  # 1 2 3 at one time, then the case
    found = reordered_ties(cases, np.random.default_rng(0))
    orders = np.unique([tuple(history) for history in found.histories()], axis=0, return_counts=True)[1]
    assert len(orders) == 6
    assert (np.abs(orders - 100) < 4 * np.sqrt(600 * (1 / 6) * (5 / 6))).all()
