import numpy as np
import pytest

from formats.errors import WrongUse
from training.memory_based.decay import PlaceDecay, TimeDecay
from training.memory_based.newest_events import NewestEvents

EVENTS = NewestEvents(
    offsets=np.array([0, 3, 3, 5]),
    item_index=np.array([4, 2, 4, 1, 1], dtype=np.int32),
    place=np.array([0, 1, 2, 0, 1]),
    age_days=np.array([0, 2, 10_000, 1, 4.0]),
)


def test_what_is_above_the_floor_halves_every_half_life():
    np.testing.assert_allclose(
        TimeDecay(2, 0.2).weights(EVENTS), [1, 0.2 + 0.8 / 2, 0.2, 0.2 + 0.8 / 2**0.5, 0.2 + 0.8 / 4]
    )


def test_weights_fall_by_place():
    np.testing.assert_allclose(PlaceDecay(0.9).weights(EVENTS), [1, 0.9, 0.81, 1, 0.9])


@pytest.mark.parametrize(
    ("kind", "values", "field"),
    [
        (TimeDecay, (0, 0.5), "half_life_days"),
        (TimeDecay, (float("inf"), 0.5), "half_life_days"),
        (TimeDecay, (7, -0.1), "floor"),
        (TimeDecay, (7, 1.1), "floor"),
        (PlaceDecay, (0,), "factor"),
        (PlaceDecay, (1.1,), "factor"),
    ],
)
def test_a_decay_that_cannot_be_meant_is_refused(kind, values, field):
    with pytest.raises(WrongUse, match=field):
        kind(*values)
