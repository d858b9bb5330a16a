import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.reference.baselines import SlowReader, lively
from tests.reference.datasets import random_histories, write_dataset
from training.baselines import masked
from training.baselines.config import BERT4RecConfig
from training.baselines.masked import hide_events
from training.batches import Batches
from training.methods import build_objective
from training.processes import Processes

SIZES = {"A": 5, "B": 6, "C": 4}  # items 1-5, 6-11, 12-15
FIRST = (1, 6, 12, 16)
MASK = 16
ALONE = Processes()
CONFIG = BERT4RecConfig(dim=8, max_history=6, layers=1, dropout=0.0, batch_windows=8, candidates=100, mask_share=0.4)


@pytest.fixture
def dataset(tmp_path):
    histories = [*random_histories((5, 6, 4), users=9, longest=7, seed=2), [1, 6, 2, 7, 1, 8, 2, 9, 3], [1, 2], [6]]
    return write_dataset(tmp_path / "small.dataset", SIZES, histories)


def batches_of(dataset, config=CONFIG):
    return list(Batches(dataset, config.max_history + 1, config.batch_windows, True, 0, config.candidates).epoch(1))


def windows_of(sequences):
    """Segment -> {position: (flat slot, item)}."""
    found = {}
    for slot, (item, position, segment) in enumerate(
        zip(*(values.flatten().tolist() for values in sequences[:3]), strict=True)
    ):
        if segment:
            found.setdefault(segment, {})[position] = (slot, item)
    return found


def events_of(batch):
    """Segment -> the events of its window, oldest first."""
    target = dict(zip(batch.cross_slot.tolist(), batch.target.tolist(), strict=True))
    return {
        segment: [target[window[place][0]] for place in range(len(window))]
        for segment, window in windows_of(batch.cross).items()
    }


def test_a_window_is_all_its_events_with_some_hidden_which_are_the_targets(dataset):
    torch.manual_seed(0)
    for batch in batches_of(dataset):
        hidden = hide_events(batch, 0.4, MASK)
        events, windows = events_of(batch), windows_of(hidden.cross)
        targets = dict(zip(hidden.cross_slot.tolist(), hidden.target.tolist(), strict=True))
        assert events.keys() == windows.keys()
        for segment, whole in events.items():
            seen = [windows[segment][place] for place in range(len(whole))]
            for event, (slot, item) in zip(whole, seen, strict=True):
                assert item == (MASK if slot in targets else event)
                assert targets.get(slot, event) == event
            count = sum(item == MASK for _, item in seen)
            assert count in (max(1, round(0.4 * len(whole))), 1)
        assert len(targets) == sum(hidden.targets_per_domain)
        assert hidden.domain.tolist() == sorted(hidden.domain.tolist())
        assert hidden.targets_per_domain == [hidden.domain.tolist().count(d) for d in range(3)]
        assert [sum(FIRST[d] <= t for d in (1, 2)) for t in hidden.target.tolist()] == hidden.domain.tolist()


def test_a_hidden_event_is_nowhere_in_the_input(tmp_path):
    """All items are different, so that it could only be there by a leak."""
    dataset = write_dataset(tmp_path / "d", SIZES, [[1, 6, 2, 12, 7], [3, 8, 13], [4, 9, 14, 10]])
    (batch,) = batches_of(dataset)
    for seed in range(20):
        torch.manual_seed(seed)
        hidden = hide_events(batch, 0.4, MASK)
        assert not set(hidden.target.tolist()) & set(hidden.cross.item.flatten().tolist())


def test_in_one_window_of_eleven_the_newest_event_alone_is_hidden(tmp_path):
    histories = [[1, 6, 2, 7, 3, 8, 4]] * 400
    dataset = write_dataset(tmp_path / "d", SIZES, histories)
    (batch,) = batches_of(dataset, replace(CONFIG, batch_windows=400))
    torch.manual_seed(0)
    hidden = hide_events(batch, 0.6, MASK)
    shapes = [
        tuple(place for place, (_, item) in sorted(window.items()) if item == MASK)
        for window in windows_of(hidden.cross).values()
    ]
    assert sum(shape == (6,) for shape in shapes) == pytest.approx(400 / 11, abs=20)
    others = [shape for shape in shapes if shape != (6,)]
    assert {len(shape) for shape in others} == {4}
    counts = np.bincount([place for shape in others for place in shape])
    assert counts == pytest.approx(len(others) * 4 / 7, rel=0.2)


def test_the_loss_is_the_softmax_at_hidden_events_read_from_both_sides(dataset):
    objective = build_objective(CONFIG, dataset).double()
    lively(objective.network)
    slow, vectors = SlowReader(objective.network, heads=2), objective.network.encoder.item_embedding.weight
    for number, batch in enumerate(batches_of(dataset)):
        torch.manual_seed(number)
        hidden = hide_events(batch, CONFIG.mask_share, MASK)
        each = []
        for window in windows_of(hidden.cross).values():
            states = slow.both_ways([window[place][1] for place in range(len(window))])
            for place, (slot, item) in window.items():
                if item == MASK:
                    (n,) = (hidden.cross_slot == slot).nonzero()[0].tolist()
                    state = F.gelu(objective.network.projection(states[place]))
                    own = range(FIRST[int(hidden.domain[n])], FIRST[int(hidden.domain[n]) + 1])
                    scores = torch.stack([vectors[i] @ state + objective.network.bias[i] for i in own])
                    each.append(torch.logsumexp(scores, 0) - scores[int(hidden.target[n]) - own.start])
        torch.manual_seed(number)
        losses = objective(batch, ALONE)
        expected = torch.stack(each).mean()
        assert_close(losses.share, expected, rtol=0, atol=1e-10)
        ours, theirs = (torch.autograd.grad(loss, list(objective.parameters())) for loss in (losses.share, expected))
        for one, other in zip(ours, theirs, strict=True):
            assert_close(one, other, rtol=0, atol=1e-9)


def test_a_prediction_uses_events_on_both_sides_and_no_other_window(dataset):
    objective = build_objective(CONFIG, dataset).double()
    lively(objective.network)
    batch = max(batches_of(dataset), key=lambda batch: len(batch.target))
    torch.manual_seed(1)
    hidden = hide_events(batch, CONFIG.mask_share, MASK)
    windows = windows_of(hidden.cross)
    segment, window = next(
        (s, w) for s, w in windows.items() if len(w) > 3 and any(w[p][1] == MASK for p in range(1, len(w) - 1))
    )
    place = next(p for p in range(1, len(window) - 1) if window[p][1] == MASK)

    def state(item):
        return objective.network.encoder(hidden.cross._replace(item=item)).flatten(0, 1)[window[place][0]]

    before = state(hidden.cross.item)
    for other in (0, len(window) - 1):
        changed = hidden.cross.item.clone()
        changed.view(-1)[window[other][0]] = 5 if window[other][1] != 5 else 4
        assert (state(changed) - before).abs().max() > 1e-6
    elsewhere = hidden.cross.item.clone()
    elsewhere[(hidden.cross.segment != segment) & (hidden.cross.segment > 0)] = 3
    assert_close(state(elsewhere), before, rtol=0, atol=1e-12)


def test_the_network_learns_eight_users_by_heart(tmp_path, monkeypatch):
    """Every user has two items of each domain that nobody else has; the second follows from the first."""
    random = np.random.default_rng(0)
    histories = [[int(i) for i in random.permutation([1, 2, 17, 18, 33, 34]) + 2 * user] for user in range(8)]
    dataset = write_dataset(tmp_path / "eight.dataset", {"A": 16, "B": 16, "C": 16}, histories)
    config = BERT4RecConfig(dim=16, max_history=6, layers=1, dropout=0.0, mask_share=0.3)
    objective = build_objective(config, dataset)
    (batch,) = batches_of(dataset, config)
    adam = torch.optim.Adam(objective.parameters(), lr=0.01)
    for step in range(400):
        torch.manual_seed(step)
        adam.zero_grad()
        objective(batch, ALONE).share.backward()
        adam.step()
    monkeypatch.setattr(masked, "NEWEST_ONLY", 1.0)
    hidden = hide_events(batch, 0.3, 49)
    network = objective.network
    with torch.no_grad():
        answers = network.at_slots(hidden.cross, hidden.cross_slot, hidden.targets_per_domain)
    scores = answers @ network.item_vectors().T
    for n, (target, domain) in enumerate(zip(hidden.target.tolist(), hidden.domain.tolist(), strict=True)):
        (row, _) = divmod(int(hidden.cross_slot[n]), hidden.cross.item.shape[1])
        seen = hidden.cross.item[row].tolist()
        columns = [item for item in range(1 + 16 * domain, 17 + 16 * domain) if item not in seen]
        assert columns[int(scores[n, columns].argmax())] == target


def test_at_first_all_items_of_a_domain_are_about_as_likely(dataset):
    objective = build_objective(CONFIG, dataset)
    losses = objective(batches_of(dataset, replace(CONFIG, batch_windows=100))[0], ALONE)
    assert losses.per_domain["mean_loss"].tolist() == pytest.approx([math.log(n) for n in SIZES.values()], abs=0.1)
