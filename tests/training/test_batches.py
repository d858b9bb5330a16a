from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.testing import assert_close

from formats.errors import WorkFailed
from formats.history import encode_histories, start_index
from model.config import SyNCRecConfig
from model.syncrec import build_syncrec
from tests.reference.datasets import random_histories, write_dataset
from tests.reference.network import lively
from tests.reference.packed import inputs_of, pairs
from training.batches import Batches, NegativeSampler, cut_windows, pack

SIZES = {"A": 5, "B": 6, "C": 4}  # items 1-5, 6-11, 12-15
SOS = 16


def domain_of(item):
    return 0 if item <= 5 else 1 if item <= 11 else 2


def batches_of(folder, histories, slots=51, batch_windows=100, every=True, seed=0, **more):
    dataset = write_dataset(folder / "small.dataset", SIZES, histories, **more)
    return Batches(dataset, slots, batch_windows, every, seed)


def read(batch):
    """Every target of a batch: (target, domain, what SDSR reads, what CDSR reads), SOS first."""
    return [
        (
            int(batch.target[n]),
            int(batch.domain[n]),
            inputs_of(batch.single, int(batch.single_slot[n])),
            inputs_of(batch.cross, int(batch.cross_slot[n])),
        )
        for n in range(len(batch.target))
    ]


def expected(window):
    return [
        (pair.target, pair.domain, (SOS, *pair.single_input), (SOS, *pair.cross_input))
        for pair in pairs(window, domain_of)
    ]


@pytest.fixture
def histories():
    return random_histories(tuple(SIZES.values()), users=23, longest=17, seed=5)


# A1 B2 A3 B4 A5 C6 C7 B8 of the paper.
A1, A3, A5, B2, B4, B8, C6, C7 = 1, 2, 3, 6, 7, 8, 12, 13
EXAMPLE = [A1, B2, A3, B4, A5, C6, C7, B8]


def test_the_papers_example_gives_these_inputs_targets_and_pairs(tmp_path):
    (batch,) = batches_of(tmp_path, [EXAMPLE]).epoch(1)
    found = {target: (single, cross) for target, _, single, cross in read(batch)}
    assert found == {
        A1: ((SOS,), (SOS,)),
        B2: ((SOS,), (SOS, A1)),
        A3: ((SOS, A1), (SOS, A1, B2)),
        B4: ((SOS, B2), (SOS, A1, B2, A3)),
        A5: ((SOS, A1, A3), (SOS, A1, B2, A3, B4)),
        C6: ((SOS,), (SOS, A1, B2, A3, B4, A5)),
        C7: ((SOS, C6), (SOS, A1, B2, A3, B4, A5, C6)),
        B8: ((SOS, B2, B4), (SOS, A1, B2, A3, B4, A5, C6, C7)),
    }
    assert batch.target.tolist() == [A1, A3, A5, B2, B4, B8, C6, C7]  # sorted by domain, then time
    assert batch.domain.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert batch.targets_per_domain == [3, 3, 2]
    assert batch.users == 1


def test_the_rows_of_the_papers_example_hold_nothing_else(tmp_path):
    (batch,) = batches_of(tmp_path, [EXAMPLE], slots=10).epoch(1)
    assert batch.cross.item.tolist() == [[SOS, A1, B2, A3, B4, A5, C6, C7, 0, 0]]
    assert batch.cross.position.tolist() == [[*range(8), 0, 0]]
    assert batch.single.item.tolist() == [[SOS, A1, A3, SOS, B2, B4, SOS, C6, 0, 0]]
    assert batch.single.position.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 0, 0]]
    assert batch.single.domain.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 0, 0]]
    (segments,) = batch.single.segment.tolist()
    a, b, c = segments[0], segments[3], segments[6]
    assert segments == [a, a, a, b, b, b, c, c, 0, 0]
    assert len({a, b, c, 0}) == 4


def test_a_user_with_one_domain_has_the_same_input_for_both_tasks(tmp_path):
    (batch,) = batches_of(tmp_path, [[1, 3, 2, 3]], slots=6).epoch(1)
    assert batch.single.item.tolist() == batch.cross.item.tolist() == [[SOS, 1, 3, 2, 0, 0]]
    assert batch.single.position.tolist() == batch.cross.position.tolist()
    assert batch.single_slot.tolist() == batch.cross_slot.tolist() == [0, 1, 2, 3]


def test_events_of_the_same_time_keep_the_order_of_the_event_table(tmp_path):
    dataset = write_dataset(tmp_path / "ties.dataset", SIZES, [[4, 9, 1, 13, 2]])
    np.save(dataset.path / "train" / "timestamp.npy", np.zeros(5, dtype=np.int64))
    from training.dataset import open_dataset

    (batch,) = Batches(open_dataset(dataset.path), 6, 1, every_window=True, seed=0).epoch(1)
    assert batch.cross.item.tolist() == [[SOS, 4, 9, 1, 13, 0]]
    assert dict(zip(batch.target.tolist(), batch.cross_slot.tolist(), strict=True)) == {4: 0, 9: 1, 1: 2, 13: 3, 2: 4}


def test_every_target_of_a_random_epoch_has_the_inputs_of_the_slow_reference(tmp_path, histories):
    batches = batches_of(tmp_path, histories, slots=6, batch_windows=7)
    windows = batches.windows(3)
    events = np.concatenate(histories)
    wanted = Counter(
        pair
        for start, length in zip(windows.start, windows.length, strict=True)
        for pair in expected(events[start : start + length].tolist())
    )
    assert Counter(pair for batch in batches.epoch(3) for pair in read(batch)) == wanted


def test_rows_never_mix_sequences_of_different_windows(tmp_path, histories):
    for batch in batches_of(tmp_path, histories, slots=6, batch_windows=7).epoch(1):
        for sequences in (batch.single, batch.cross):
            for row in range(len(sequences.item)):
                for segment in set(sequences.segment[row].tolist()) - {0}:
                    inside = sequences.segment[row] == segment
                    assert sequences.position[row][inside].tolist() == list(range(int(inside.sum())))
                    assert (sequences.item[row][inside] == SOS).tolist() == [True] + [False] * (int(inside.sum()) - 1)
            # Padding holds nothing.
            padding = sequences.segment == 0
            assert all((values[padding] == 0).all() for values in sequences)
        # A segment number stands in one row only.
        for sequences in (batch.single, batch.cross):
            rows = Counter(s for row in sequences.segment for s in set(row.tolist()) - {0})
            assert set(rows.values()) == {1}


def test_an_epoch_predicts_every_event_once(tmp_path, histories):
    batches = batches_of(tmp_path, histories, slots=4, batch_windows=5)
    for epoch in (1, 2):
        targets = Counter(int(target) for batch in batches.epoch(epoch) for target in batch.target)
        assert targets == Counter(item for row in histories for item in row)


@pytest.mark.parametrize(("users", "batch_windows"), [(5, 2), (7, 3), (4, 4), (1, 9), (11, 4)])
def test_an_epoch_is_cut_into_equal_batches_and_drops_none(tmp_path, users, batch_windows):
    batches = batches_of(tmp_path, [[1, 2]] * users, batch_windows=batch_windows)
    sizes = [len(batch.target) // 2 for batch in batches.epoch(1)]
    assert len(sizes) == batches.steps(users) == -(-users // batch_windows)
    assert sum(sizes) == users
    assert max(sizes) <= batch_windows
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_windows_cut_whole_histories_without_gap_or_overlap(slots):
    random = np.random.default_rng(0)
    for _ in range(30):
        lengths = random.integers(0, 14, 8)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        windows = cut_windows(offsets, slots, every=True, random=random)
        covered = [e for s, n in zip(windows.start, windows.length, strict=True) for e in range(s, s + n)]
        assert sorted(covered) == list(range(offsets[-1]))
        assert windows.length.min(initial=1) >= 1
        assert windows.length.max(initial=1) <= slots
        for user, start, length in zip(windows.user, windows.start, windows.length, strict=True):
            assert offsets[user] <= start
            assert start + length <= offsets[user + 1]
        # At most one more window than needed, and a history that fits is not cut at all.
        per_user = np.bincount(windows.user, minlength=8)
        needed = -(-lengths // slots)
        assert (per_user <= needed + (lengths > slots)).all()
        assert (per_user[(lengths > 0) & (lengths <= slots)] == 1).all()


def test_epochs_cut_histories_at_different_places():
    offsets = np.array([0, 100])
    starts = [cut_windows(offsets, 10, True, np.random.default_rng(seed)).start[1] for seed in range(40)]
    assert set(starts) == set(range(1, 11))


def test_newest_windows_take_the_end_of_every_history():
    windows = cut_windows(np.array([0, 3, 3, 10]), 4, every=False, random=np.random.default_rng(0))
    assert windows.user.tolist() == [0, 2]
    assert windows.start.tolist() == [0, 10 - 4]
    assert windows.length.tolist() == [3, 4]


def test_packed_windows_fit_and_do_not_overlap():
    random = np.random.default_rng(1)
    for _ in range(30):
        lengths = random.integers(1, 9, 20)
        row, column = pack(lengths, slots=8)
        slots = [(r, s) for r, c, n in zip(row, column, lengths, strict=True) for s in range(c, c + n)]
        assert len(slots) == len(set(slots)) == lengths.sum()
        assert max(s for _, s in slots) < 8
        assert set(row) == set(range(row.max() + 1))
        # First fit: no two rows would go into one.
        used = np.bincount(row, weights=lengths)
        assert len(used) == 1 or np.sort(used)[:2].sum() > 8


def test_nothing_is_packed_into_no_rows():
    row, column = pack(np.zeros(0, dtype=np.int64), slots=8)
    assert len(row) == len(column) == 0


def same_batch(one, other):
    return all(
        torch.equal(a, b)
        if isinstance(a, torch.Tensor)
        else all(map(torch.equal, a, b))
        if isinstance(a, tuple)
        else a == b
        for a, b in zip(one, other, strict=True)
    )


def test_any_step_can_be_made_again(tmp_path, histories):
    batches = batches_of(tmp_path, histories, slots=6, batch_windows=4)
    whole, again = list(batches.epoch(2)), list(batches.epoch(2, first_step=3))
    assert len(again) == len(whole) - 3
    assert all(same_batch(*both) for both in zip(whole[3:], again, strict=True))


def test_order_windows_and_negatives_change_with_epoch_and_seed(tmp_path, histories):
    dataset = write_dataset(tmp_path / "small.dataset", SIZES, histories)

    def first(seed, epoch):
        return next(Batches(dataset, 6, 100, every_window=True, seed=seed).epoch(epoch))

    assert same_batch(first(0, 1), first(0, 1))
    for other in (first(0, 2), first(1, 1)):
        assert not torch.equal(first(0, 1).negative, other.negative)


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_the_shares_of_several_ranks_are_the_batch_of_one(tmp_path, histories, ranks):
    batches = batches_of(tmp_path, histories, slots=6, batch_windows=9)
    shares = zip(*(batches.epoch(1, rank=rank, ranks=ranks) for rank in range(ranks)), strict=True)
    for whole, parts in zip(batches.epoch(1), shares, strict=True):

        def facts(batch):
            return Counter(zip(read(batch), batch.negative.tolist(), batch.user.tolist(), strict=True))

        assert sum((facts(part) for part in parts), Counter()) == facts(whole)
        assert {part.users for part in parts} == {whole.users}
        assert np.sum([part.targets_per_domain for part in parts], axis=0).tolist() == whole.targets_per_domain


def test_a_rank_without_a_window_gets_an_empty_share(tmp_path):
    batches = batches_of(tmp_path, [[1, 6]])
    share = next(batches.epoch(1, rank=1, ranks=2))
    assert len(share.target) == 0
    assert share.targets_per_domain == [0, 0, 0]
    assert share.cross.item.shape == (0, 51)
    assert share.users == 1


def test_user_numbers_join_the_windows_of_the_same_user(tmp_path):
    batches = batches_of(tmp_path, [[1, 6, 2, 7, 3, 8], [12, 13]], slots=2)
    (batch,) = batches.epoch(1)
    numbers = {}
    for item, user in zip(batch.target.tolist(), batch.user.tolist(), strict=True):
        numbers.setdefault(user, set()).add(item)
    assert sorted(map(sorted, numbers.values())) == [[1, 2, 3, 6, 7, 8], [12, 13]]
    assert batch.users == 2


def sampler(histories, sizes=SIZES, folder=None):
    return NegativeSampler(write_dataset(folder / "negatives.dataset", sizes, histories).train, tuple(sizes.values()))


def draw(negatives, user, domain, random):
    n = len(random)
    return negatives.draw(np.full(n, user), np.full(n, domain), random)


def test_negatives_are_of_the_domain_and_never_a_training_item_of_the_user(tmp_path, histories):
    negatives = sampler(histories, folder=tmp_path)
    grid = np.linspace(0, 1, 200, endpoint=False)
    for user, history in enumerate(histories):
        for domain, (first, size) in enumerate(zip((1, 6, 12), SIZES.values(), strict=True)):
            drawn = set(draw(negatives, user, domain, grid).tolist())
            # All free items, and nothing else: no padding, no SOS, no owned item, no other domain.
            assert drawn == set(range(first, first + size)) - set(history)


def test_negatives_are_uniform(tmp_path):
    sizes = {"A": 30, "B": 3}
    owned = [2, 3, 4, 11, 29, 30]
    negatives = sampler([[1], [*owned, 31]], sizes, tmp_path)
    drawn = draw(negatives, 1, 0, np.random.default_rng(0).random(24_000))
    counts = np.bincount(drawn, minlength=34)
    free = [item for item in range(1, 31) if item not in owned]
    assert counts[free].sum() == 24_000
    assert chisquare(counts[free]).pvalue > 0.001


def test_the_ends_of_the_unit_interval_stay_inside(tmp_path):
    negatives = sampler([[1, 5, 7]], folder=tmp_path)
    almost_one = np.nextafter(1, 0)
    assert draw(negatives, 0, 0, np.array([0.0, almost_one])).tolist() == [2, 4]
    assert draw(negatives, 0, 1, np.array([0.0, almost_one])).tolist() == [6, 11]
    assert draw(negatives, 0, 2, np.array([0.0, almost_one])).tolist() == [12, 15]


def test_validation_and_test_items_can_be_drawn(tmp_path):
    """Excluding them would be knowledge of the future."""
    batches = batches_of(tmp_path, [[1, 2, 3]] * 40, validation=[[4]] * 40, test=[[5]] * 40)
    drawn = {int(item) for batch in batches.epoch(1) for item in batch.negative}
    assert drawn == {4, 5}


def test_negatives_of_a_batch_stand_beside_targets_of_the_same_domain(tmp_path, histories):
    batches = batches_of(tmp_path, histories, slots=6, batch_windows=4)
    for batch in batches.epoch(1):
        for (target, domain, _, _), negative in zip(read(batch), batch.negative.tolist(), strict=True):
            assert 1 <= negative < SOS
            assert domain_of(negative) == domain == domain_of(target)
            assert negative != target


def test_negatives_exclude_what_the_user_has_outside_the_window(tmp_path):
    """Windows of two events; the user's other windows count as well."""
    batches = batches_of(tmp_path, [[1, 2, 3, 4]] * 30, slots=2)
    assert {int(item) for batch in batches.epoch(1) for item in batch.negative} == {5}


def test_a_user_who_owns_a_whole_domain_is_a_clear_error(tmp_path):
    batches = batches_of(tmp_path, [[1, 6], [1, 2, 12, 13, 14, 15]])
    with pytest.raises(WorkFailed, match="user number 1 has every item of domain number 3"):
        list(batches.epoch(1))


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 9, 15])
def test_training_reads_a_history_as_the_service_encodes_it(tmp_path, length):
    """What CDSR reads before the newest target of the newest window is `encode_histories` of everything before it."""
    max_history = 7
    history = [1, 6, 2, 12, 7, 3, 3, 13, 8, 1, 6, 2, 12, 7, 3][:length]
    batches = batches_of(tmp_path, [history], slots=max_history + 1, every=False)
    (batch,) = batches.epoch(1)
    newest = int(batch.cross_slot.argmax())
    read_in_training = inputs_of(batch.cross, int(batch.cross_slot[newest]))
    (encoded,) = encode_histories([np.array(history[:-1], dtype=np.int32)], max_history, SOS - 1)
    assert read_in_training == tuple(encoded[encoded > 0].tolist())
    assert read_in_training[0] == start_index(SOS - 1) == SOS

    config = SyNCRecConfig((5, 6, 4), max_history, dim=8, heads=2, layers=2, experts=3, single_experts=1, dropout=0.0)
    network = lively(build_syncrec(config))
    out = network(batch.single, batch.cross, batch.single_slot, batch.cross_slot, batch.targets_per_domain)
    served = network.cross_next(torch.from_numpy(encoded)[None])[0]
    assert_close(out.cross[newest], served, rtol=0, atol=1e-10)
    # And SDSR of the same target, from the same window.
    domain = int(batch.domain[newest])
    own = [item for item in encoded.tolist() if item and item != SOS and domain_of(item) == domain]
    single = torch.from_numpy(encode_histories([np.array(own, dtype=np.int32)], max_history, SOS - 1))
    assert_close(out.single[newest], network.single_next(single, domain)[0], rtol=0, atol=1e-10)


def test_candidates_are_distinct_items_of_their_domain_drawn_anew_each_step_and_alike_on_every_rank(
    tmp_path, histories
):
    dataset = write_dataset(tmp_path / "small.dataset", SIZES, histories)
    batches = Batches(dataset, 51, 4, every_window=True, seed=0, candidates=5)
    seen = []
    for one, other in zip(batches.epoch(1), batches.epoch(1, rank=1, ranks=2), strict=True):
        assert one.negative is None
        assert one.candidates.items_per_domain == tuple(SIZES.values())
        for domain, (drawn, again) in enumerate(zip(one.candidates.drawn, other.candidates.drawn, strict=True)):
            assert_close(drawn, again)
            assert len(set(drawn.tolist())) == len(drawn) == min(5, dataset.items_per_domain[domain])
            assert {domain_of(item) for item in drawn.tolist()} == {domain}
        seen.append(tuple(one.candidates.drawn[1].tolist()))
    assert len(set(seen)) > 1


def test_candidates_are_drawn_uniformly(tmp_path, histories):
    dataset = write_dataset(tmp_path / "small.dataset", SIZES, histories)
    batches = Batches(dataset, 51, 1, every_window=True, seed=0, candidates=2)
    drawn = Counter(
        item for epoch in range(60) for b in batches.epoch(epoch) for item in b.candidates.drawn[1].tolist()
    )
    assert chisquare([drawn[item] for item in range(6, 12)]).pvalue > 0.001


def test_with_candidates_a_user_may_have_every_item_of_a_domain(tmp_path):
    dataset = write_dataset(tmp_path / "small.dataset", SIZES, [[12, 13, 14, 15, 1], [1, 2]])
    (batch,) = Batches(dataset, 51, 100, every_window=True, seed=0, candidates=3).epoch(1)
    assert len(batch.target) == 7
