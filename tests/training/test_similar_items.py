import numpy as np
import pytest

from formats.neighbours import NEIGHBOURS_KEPT
from tests.reference.memory_based import random_timed_dataset
from training.members import KNN_DAMPING, KNN_PAIRS
from training.similar_items import strongest_neighbours, unit_vectors

DAY = 86_400 * 10**6


def test_every_vector_is_brought_to_length_1_and_zeros_stay_zeros():
    table = np.array([[0, 0], [3, 4], [0, 0], [0, -2], [9, 9]], dtype=np.float32)
    np.testing.assert_array_equal(unit_vectors(table), np.array([[0.6, 0.8], [0, 0], [0, -1]], dtype=np.float32))


def pair_weights(dataset):
    """Of all ordered pairs of items, by a loop over all pairs of events of a user."""
    train = dataset.train
    weights, counts = {}, np.bincount(train.item_index, minlength=dataset.items + 1)
    for user in range(train.users):
        events = train.of_user(user)
        rows = list(zip(train.item_index[events].tolist(), train.timestamp[events].tolist(), strict=True))
        for place, (one, when) in enumerate(rows):
            for other, later in rows[:place] + rows[place + 1 :]:
                if one != other:
                    weight = KNN_PAIRS.after(np.array([abs(later - when) / DAY]))[0]
                    weight /= (int(counts[one]) * int(counts[other])) ** KNN_DAMPING
                    weights[one, other] = weights.get((one, other), 0.0) + weight
    return weights


@pytest.mark.parametrize("seed", range(4))
def test_the_strongest_neighbours_of_each_domain_come_first(tmp_path, seed):
    dataset = random_timed_dataset(tmp_path / "d", seed)
    weights, domain = pair_weights(dataset), dataset.item_domain()
    found = strongest_neighbours(dataset)
    assert found.dtype == np.int32
    assert found.shape == (dataset.items, 3, NEIGHBOURS_KEPT)
    for item in range(1, dataset.items + 1):
        for number in range(3):
            wanted = {other: w for (one, other), w in weights.items() if one == item and domain[other] == number + 1}
            near = [int(other) for other in found[item - 1, number] if other]
            assert near == found[item - 1, number, : len(near)].tolist()
            assert set(near) == set(wanted)  # no domain has more than NEIGHBOURS_KEPT items
            # Weights are summed in another order: nearly equal ones may change places.
            strengths = [wanted[other] for other in near]
            np.testing.assert_allclose(strengths, sorted(strengths, reverse=True), rtol=1e-6)
