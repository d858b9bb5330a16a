import random

import pytest
import torch

from model.baselines.visible import only_visible
from tests.reference.packed import inputs_of, rows_of

SOS = 13


def test_what_is_left_reads_as_if_the_others_had_never_happened():
    """Packed rows with padding; every slot answers with what its last visible predecessor stands behind."""
    random.seed(0)
    for _ in range(20):
        rows = [[(random.choices(range(1, 13), k=random.randint(0, 4)), 0) for _ in range(2)] for _ in range(4)]
        sequences, places = rows_of(rows, 12, SOS)
        hidden = set(random.sample(range(1, 13), 5))
        visible = ~torch.isin(sequences.item, torch.tensor(sorted(hidden)))
        changed, stands_for = only_visible(sequences, visible)
        for row, row_places in enumerate(places):
            for place in row_places:
                slot = row * 12 + place
                expected = tuple(item for item in inputs_of(sequences, slot) if item not in hidden)
                assert inputs_of(changed, int(stands_for[slot])) == expected
                assert changed.position.flatten()[stands_for[slot]] == len(expected) - 1
        assert ((changed.segment == 0) == (changed.item == 0)).all()
        assert (changed.position[changed.segment == 0] == 0).all()


def test_with_all_visible_nothing_changes():
    sequences, places = rows_of([[([1, 2, 3], 0), ([4], 0)], [([], 0)]], 8, SOS)
    changed, stands_for = only_visible(sequences, torch.ones_like(sequences.item, dtype=torch.bool))
    for one, other in zip(changed, sequences, strict=True):
        assert torch.equal(one, other)
    real = [row * 8 + place for row, row_places in enumerate(places) for place in row_places]
    assert stands_for[real].tolist() == real


@pytest.mark.parametrize("visible", [True, False])
def test_the_start_of_a_sequence_is_always_visible(visible):
    sequences, _ = rows_of([[([1, 2], 0), ([3], 0)]], 5, SOS)
    changed, stands_for = only_visible(sequences, torch.full_like(sequences.item, visible, dtype=torch.bool))
    assert (changed.item == SOS).sum() == 2
    if not visible:
        assert stands_for.tolist() == [0, 0, 0, 3, 3]
