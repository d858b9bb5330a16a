"""Worlds as datasets: what is said to be true of a case is what was true when its event was drawn."""

import numpy as np
import pytest

from formats.errors import WorkFailed
from training.cases import contexts
from training.generate import event_nll, generate
from training.studies.known_worlds import TEST_FROM, VALIDATION_FROM, known_world, world_dataset
from training.truth import DomainTruth, World, five_domains

# Not in the order of their names, which is that of datasets.
SMALL = World(
    (
        DomainTruth("far", 0.0, 0.3, 0.6, items=5, clusters=2),
        DomainTruth("near", 0.9, 0.5, 0.2, items=7, clusters=3),
        DomainTruth("dull", 0.0, 0.2, 0.0, noise=True, items=4, clusters=4),
    ),
    users=300,
    events=(15, 25),
    seed=3,
)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return known_world(SMALL, tmp_path_factory.mktemp("world"))


def test_targets_have_the_probability_that_they_were_drawn_with(known):
    cases = contexts(known.dataset, "test")
    assert known.dataset.domains == tuple(domain.name for domain in known.world.domains) == ("dull", "far", "near")
    histories = generate(known.world)
    drawn = event_nll(known.world, histories)[1_000_000 * histories.timestamp >= TEST_FROM]
    domain_drawn = histories.domain[1_000_000 * histories.timestamp >= TEST_FROM]
    for domain in range(3):
        own = cases.take(np.flatnonzero(cases.target_domain == domain + 1))
        exact = known.probabilities(own, domain)
        assert exact.sum(1) == pytest.approx(1)
        target = own.target - known.dataset.first_item(domain + 1)
        # Both in order of user and time, whatever numbers the dataset gives its users.
        order = np.argsort(known.dataset.all_user_ids.str.slice(1).cast(int).to_numpy()[own.user], kind="stable")
        found = -np.log(exact[np.arange(len(own)), target])[order]
        assert found == pytest.approx(drawn[domain_drawn == domain])


def test_a_world_is_made_once(known):
    before = (known.dataset.path / "manifest.json").stat().st_mtime_ns
    again = known_world(SMALL, known.dataset.path.parent)
    assert (again.dataset.path / "manifest.json").stat().st_mtime_ns == before
    assert not list(known.dataset.path.parent.glob("*.parquet"))


def test_without_a_domain_the_others_have_the_same_events_and_cuts(known, tmp_path):
    others = world_dataset(known.world, tmp_path / "dataset", without="far")
    assert others.domains == ("dull", "near")
    for part in ("train", "validation", "test"):
        counts = np.bincount(known.dataset.part(part).domain, minlength=4)
        assert np.bincount(others.part(part).domain, minlength=3).tolist() == [0, counts[1], counts[3]]
    assert known.dataset.train.timestamp.max() < VALIDATION_FROM <= known.dataset.validation.timestamp.min()
    assert known.dataset.validation.timestamp.max() < TEST_FROM <= known.dataset.test.timestamp.min()


def test_an_item_that_nobody_has_is_refused(tmp_path):
    with pytest.raises(WorkFailed, match="more users"):
        known_world(five_domains(users=20, seed=0), tmp_path)
