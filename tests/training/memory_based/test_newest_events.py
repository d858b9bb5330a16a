import numpy as np
import pytest

from tests.reference.memory_based import items_of, newest, random_timed_dataset
from training.cases import contexts
from training.memory_based.domains import columns_per_domain
from training.memory_based.newest_events import newest_events


@pytest.fixture(params=range(3))
def dataset(tmp_path, request):
    return random_timed_dataset(tmp_path / "timed.dataset", seed=request.param)


def test_columns_are_the_items_of_each_domain(dataset):
    assert columns_per_domain(dataset) == (slice(1, 10), slice(10, 16), slice(16, 17))


@pytest.mark.parametrize("longest", [1, 3, None])
@pytest.mark.parametrize("domain", [None, 0, 1, 2])
def test_events_are_the_newest_known_ones_with_their_ages(dataset, domain, longest):
    readable = range(1, 17) if domain is None else items_of(dataset, domain)
    cases = contexts(dataset, "test")
    found = newest_events(cases, slice(readable.start, readable.stop), longest)
    for case in range(len(cases)):
        own = slice(found.offsets[case], found.offsets[case + 1])
        expected = newest(cases, case, readable, longest)
        assert found.item_index[own].tolist() == [item for item, _ in expected]
        assert found.age_days[own].tolist() == [age for _, age in expected]
        assert found.place[own].tolist() == list(range(len(expected)))
    assert len(found.offsets) == len(cases) + 1
    assert found.offsets[-1] == len(found.item_index)


def test_no_cases_no_events(dataset):
    found = newest_events(contexts(dataset, "test").take(np.array([], dtype=np.int64)), slice(1, 17), 5)
    assert found.offsets.tolist() == [0]
    assert not len(found.item_index)
