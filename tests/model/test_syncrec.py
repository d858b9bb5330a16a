import random

import pytest
import torch
from torch.testing import assert_close

from model.config import SyNCRecConfig
from model.syncrec import Sequences, build_syncrec
from tests.reference.network import SlowNetwork, lively
from tests.reference.packed import rows_of

SIZES = (5, 4, 3)  # items 1-5, 6-9, 10-12
SOS = sum(SIZES) + 1
SLOTS = 9
A, B, C = 0, 1, 2
EXACT = {"rtol": 0, "atol": 1e-10}


def build(sizes=SIZES, **changes):
    sizes_of = {"max_history": SLOTS - 1, "dim": 8, "heads": 2, "layers": 2, "experts": 4, "single_experts": 1}
    return lively(build_syncrec(SyNCRecConfig(items_per_domain=sizes, dropout=0.3, **{**sizes_of, **changes})))


@pytest.fixture(scope="module")
def network():
    return build()


@pytest.fixture(scope="module")
def slow(network):
    return SlowNetwork(network, SIZES, heads=2, single_experts=1)


def domain_of(item):
    return A if item <= 5 else B if item <= 9 else C


def of_domain(history, domain):
    return [item for item in history if domain_of(item) == domain]


def cross_of(network, histories, slots=SLOTS):
    """CDSR at every position of histories, one per row: a list of [1 + items, dim]."""
    sequences, places = rows_of([[(history, 0)] for history in histories], slots, SOS)
    return read(network, sequences, places, single=False)


def single_of(network, rows, slots=SLOTS):
    """SDSR at every position of rows of packed (items, domain), a list of [tokens, dim]."""
    sequences, places = rows_of(rows, slots, SOS)
    return read(network, sequences, places, single=True)


def read(network, sequences, places, single):
    """All real positions of one task through the network's own forward, the other task given next to nothing."""
    slots = sequences.item.shape[1]
    flat = [row * slots + place for row, row_places in enumerate(places) for place in row_places]
    domain = sequences.domain.flatten()[flat] if single else torch.zeros(len(flat), dtype=torch.int64)
    order = torch.argsort(domain, stable=True)
    counts = torch.bincount(domain, minlength=len(network.single_towers)).tolist()
    slot = torch.tensor(flat, dtype=torch.int64)[order]
    nothing, _ = rows_of([[([], 0)]], slots, SOS)
    none = torch.full_like(slot, slots - 1)
    args = (sequences, nothing, slot, none) if single else (nothing, sequences, none, slot)
    out = network(*args, counts)
    answers = (out.single if single else out.cross)[torch.argsort(order)]
    return list(answers.split([len(row_places) for row_places in places]))


HISTORIES = [[1, 6, 3, 7, 5, 10, 11, 9], [2], [], [4, 4, 4, 1], [12, 6, 6, 2, 10]]


def test_cdsr_agrees_with_the_slow_network_at_every_position_of_a_mixed_batch(network, slow):
    for history, out in zip(HISTORIES, cross_of(network, HISTORIES), strict=True):
        assert_close(out, slow.cross(history), **EXACT)


def test_packed_sdsr_agrees_with_the_slow_network_domain_by_domain(network, slow):
    """The packed pass equals D separate passes, each over one user's one domain."""
    rows = [[(of_domain(history, d), d) for d in (A, B, C)] for history in HISTORIES]
    outs = single_of(network, rows, slots=SLOTS + 2)  # three SOS
    for row, out in zip(rows, outs, strict=True):
        assert_close(out, torch.cat([slow.single(items, d) for items, d in row]), **EXACT)


def test_packing_equals_one_sequence_per_row(network):
    rows = [[(of_domain(history, d), d) for d in (B, C, A)] for history in HISTORIES]
    together = torch.cat(single_of(network, rows, slots=SLOTS + 2))
    apart = torch.cat(single_of(network, [[part] for row in rows for part in row], slots=SLOTS + 2))
    assert_close(together, apart, **EXACT)


def test_several_users_in_one_row_equal_one_user_per_row(network):
    sequences, places = rows_of([[([1, 6, 3], 0), ([2], 0), ([], 0), ([12, 6], 0)], [([], 0)]], 12, SOS)
    together = torch.cat(read(network, sequences, places, single=False))
    apart = torch.cat(cross_of(network, [[1, 6, 3], [2], [], [12, 6], []]))
    assert_close(together, apart, **EXACT)


def test_a_random_batch_agrees_with_the_slow_network(network, slow):
    random.seed(0)
    histories = [random.choices(range(1, 13), k=random.randint(0, 8)) for _ in range(12)]
    assert_close(torch.cat(cross_of(network, histories)), torch.cat([slow.cross(h) for h in histories]), **EXACT)
    rows = [[(of_domain(h, d), d) for d in (A, B, C)] for h in histories]
    expected = torch.cat([slow.single(items, d) for row in rows for items, d in row])
    assert_close(torch.cat(single_of(network, rows, slots=11)), expected, **EXACT)


def test_the_next_item_paths_are_the_last_positions(network, slow):
    encoded = torch.zeros(len(HISTORIES), SLOTS, dtype=torch.int32)
    for row, history in zip(encoded, HISTORIES, strict=True):
        row[SLOTS - 1 - len(history) :] = torch.tensor([SOS, *history])
    assert_close(network.cross_next(encoded), torch.stack([slow.cross(h)[-1] for h in HISTORIES]), **EXACT)
    own = [of_domain(history, B) for history in HISTORIES]
    encoded = torch.zeros(len(own), SLOTS, dtype=torch.int32)
    for row, history in zip(encoded, own, strict=True):
        row[SLOTS - 1 - len(history) :] = torch.tensor([SOS, *history])
    assert_close(network.single_next(encoded, B), torch.stack([slow.single(h, B)[-1] for h in own]), **EXACT)


# Events of B inserted, removed, replaced and moved, within the window.
MIXED = [1, 6, 3, 7, 5]
OTHER_B = [[1, 3, 5], [1, 3, 5, 9], [8, 1, 6, 3, 7, 5], [1, 7, 3, 6, 5], [6, 7, 1, 3, 5], [1, 9, 3, 8, 5]]


@pytest.mark.parametrize("changed", OTHER_B)
def test_events_of_another_domain_change_cdsr_but_not_sdsr(network, changed):
    def sdsr(history):
        (out,) = single_of(network, [[(of_domain(history, d), d) for d in (A, B, C)]], slots=12)
        return out[: 1 + 3]  # SOS and three events of A

    assert_close(sdsr(changed), sdsr(MIXED), **EXACT)
    (before,), (after,) = cross_of(network, [MIXED]), cross_of(network, [changed])
    assert (after[-1] - before[-1]).abs().max() > 1e-3


def test_sdsr_reads_the_order_of_its_own_domain(network):
    (one,), (other,) = single_of(network, [[([1, 3, 5], A)]]), single_of(network, [[([3, 1, 5], A)]])
    assert (one[-1] - other[-1]).abs().max() > 1e-3


class Gates:
    """Records what the gates say (before softmax) while the network runs."""

    def __init__(self, network):
        self.logits = []
        gates = (network.acmoe.single_gates, network.acmoe.cross_gate)
        self.hooks = [gate.register_forward_hook(lambda *call: self.logits.append(call[2])) for gate in gates]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


# Every later event another item, a shorter future, a longer one, and events that change their domain.
FUTURES = [[2, 2, 2], [], [4, 9, 12, 1, 6], [8, 11, 1]]


@pytest.mark.parametrize("future", FUTURES)
def test_cdsr_and_its_gate_do_not_see_the_future(network, future):
    past = [1, 6, 3]
    with Gates(network) as gates:
        (before,) = cross_of(network, [[*past, 5, 10, 7]])
        (after,) = cross_of(network, [past + future])
    known = 1 + len(past)
    assert_close(after[:known], before[:known], **EXACT)
    one, other = (logits[0] for logits in gates.logits if logits.shape[-1] == 4)  # one cross gate of four experts
    assert_close(one[-7:][:known], other[-1 - len(past + future) :][:known], **EXACT)


@pytest.mark.parametrize("future", FUTURES)
def test_sdsr_and_its_gates_do_not_see_the_future(network, future):
    past = [1, 6, 3]

    def outs(history):
        rows = [[(of_domain(history, d), d)] for d in (A, B, C)]
        sequences, places = rows_of(rows, SLOTS, SOS)
        with Gates(network) as gates:
            answers = read(network, sequences, places, single=True)
        logits = next(found for found in gates.logits if found.shape[-1] == 3 * 4)
        return answers, [logits[row, place.start : place.stop] for row, place in enumerate(places)]

    (before, gates_before), (after, gates_after) = outs([*past, 5, 10, 7]), outs(past + future)
    for d in (A, B, C):
        known = 1 + len(of_domain(past, d))
        assert_close(after[d][:known], before[d][:known], **EXACT)
        assert_close(gates_after[d][:known], gates_before[d][:known], **EXACT)


def test_no_gradient_flows_from_an_answer_to_a_later_event(network):
    """The same in another way: the derivative of every answer by every later embedding is exactly zero."""
    sequences, _ = rows_of([[([1, 6, 3, 7], 0)]], 5, SOS)
    embedded = network.embed(sequences).detach().requires_grad_()
    from model.transformer import may_attend

    for out in (
        network.acmoe.cross(embedded, may_attend(sequences.segment)),
        network.acmoe.single(embedded, may_attend(sequences.segment), sequences.domain),
    ):
        for t in range(5):
            (gradient,) = torch.autograd.grad(out[0, t].sum(), embedded, retain_graph=True)
            assert (gradient[0, t + 1 :] == 0).all()
            assert (gradient[0, : t + 1].abs().sum(-1) > 0).all()


def test_more_padding_changes_nothing_at_real_positions(network):
    short = torch.cat(cross_of(network, HISTORIES, slots=SLOTS))
    long = torch.cat(cross_of(network, HISTORIES, slots=SLOTS + 7))
    assert_close(long, short, **EXACT)
    rows = [[(of_domain(history, d), d) for d in (A, B, C)] for history in HISTORIES]
    short, long = (torch.cat(single_of(network, rows, slots)) for slots in (SLOTS + 2, SLOTS + 9))
    assert_close(long, short, **EXACT)


def test_what_stands_in_a_padding_slot_is_never_read(network):
    sequences, places = rows_of([[([1, 6, 3], 0)], [([], 0)]], SLOTS, SOS)
    before = read(network, sequences, places, single=False)
    padding = sequences.segment == 0
    dirty = Sequences(
        *(torch.where(padding, 3, values) for values in (sequences.item, sequences.position)), *sequences[2:]
    )
    for one, other in zip(before, read(network, dirty, places, single=False), strict=True):
        assert_close(one, other, **EXACT)


def test_the_embedding_is_the_normalised_sum_of_item_domain_and_position(network):
    item, position = torch.tensor([[0, SOS, 1, 6, 12]]), torch.tensor([[0, 0, 1, 2, 3]])
    embedded = network.embed(Sequences(item, position, item, item))[0]
    for place, (i, d, p) in enumerate([(0, 0, 0), (SOS, 0, 0), (1, 1, 1), (6, 2, 2), (12, 3, 3)]):
        summed = (
            network.item_embedding.weight[i] + network.domain_embedding.weight[d] + network.position_embedding.weight[p]
        )
        expected = torch.nn.functional.layer_norm(
            summed, (8,), network.embedding_norm.weight, network.embedding_norm.bias
        )
        assert_close(embedded[place], expected)


def test_padding_vectors_start_at_zero_and_never_learn():
    network = build_syncrec(
        SyNCRecConfig(SIZES, max_history=4, dim=8, heads=2, layers=1, experts=2, single_experts=1, dropout=0.0)
    )
    tables = (network.item_embedding.weight, network.domain_embedding.weight)
    assert all((table[0] == 0).all() for table in tables)
    network.cross_next(torch.tensor([[0, 0, SOS, 3, 9]]))[0, 0].backward()
    assert all((table.grad[0] == 0).all() and table.grad.abs().sum() > 0 for table in tables)


def test_weights_start_at_a_standard_deviation_of_two_hundredths():
    network = build_syncrec(
        SyNCRecConfig((400,), max_history=4, dim=64, heads=1, layers=1, experts=2, single_experts=1, dropout=0.0)
    )
    for weight in (network.item_embedding.weight[1:], network.cross_tower.widen.weight):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert (network.cross_tower.widen.bias == 0).all()


def test_with_one_domain_both_tasks_read_the_same_embedding():
    network = build(sizes=(6,))
    sequences, _ = rows_of([[([1, 3, 2], 0)], [([], 0)]], 5, 7)
    same = Sequences(sequences.item, sequences.position, sequences.segment, torch.zeros_like(sequences.domain))
    assert torch.equal(network.embed(sequences), network.embed(same))
    # And once gates, towers and the stop-gradient say the same, both give the same answer.
    with torch.no_grad():
        network.acmoe.cross_gate.weight.copy_(network.acmoe.single_gates.weight)
        network.acmoe.cross_gate.bias.copy_(network.acmoe.single_gates.bias)
    network.cross_tower.load_state_dict(network.single_towers[0].state_dict())
    encoded = sequences.item
    assert torch.equal(network.cross_next(encoded), network.single_next(encoded, 0))


def test_scores_are_products_with_the_item_embeddings(network):
    assert network.item_vectors() is network.item_embedding.weight


def test_same_seed_same_network_other_seed_another():
    def weights(seed):
        torch.manual_seed(seed)
        config = SyNCRecConfig(SIZES, max_history=4, dim=8, heads=2, layers=1, experts=2, single_experts=1, dropout=0.0)
        return torch.cat([parameter.detach().flatten() for parameter in build_syncrec(config).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
