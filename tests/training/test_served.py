"""What a run serves: the module that is exported ranks by the same shares as the evaluation."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from formats.errors import WorkFailed
from formats.history import encode_histories
from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, MixedRanker, Mixture
from model.ranker import Ranker
from training.cases import contexts
from training.config import TrainingConfig
from training.members import HALF_LIVES, NAMES, RECENT, fit_members
from training.memory_based.newest_events import MICROSECONDS_PER_DAY
from training.mixture import MIXTURE, MixtureScorer
from training.run import open_trained
from training.served import MIXED, choose_mixture, scorers_of, served_mixture, serves_mixture
from training.served_ranker import served_ranker
from training.task import catalogue_of


@pytest.fixture(scope="module")
def members(tiny_mixed_trained):
    return fit_members(tiny_mixed_trained.dataset, tiny_mixed_trained.run.config.max_history)


def random_weights(seed, left_out):
    random = np.random.default_rng(seed)
    found = []
    for _ in range(3):
        weights = random.dirichlet(np.ones(len(NAMES)))
        weights[random.permutation(len(NAMES))[:left_out]] = 0
        found.append(dict(zip(NAMES, map(float, weights / weights.sum()), strict=True)))
    return found


def shares_of_module(mixture, members, cases, trained):
    """Shares by the module, each case with the counts of its day."""
    encoded = encode_histories(cases.histories(), trained.run.config.max_history, trained.dataset.items)
    days = cases.timestamp[cases.position] // MICROSECONDS_PER_DAY
    found = np.empty((len(cases), trained.dataset.items + 2), dtype=np.float32)
    for day in np.unique(days):
        today = days == day
        counts = torch.from_numpy(members.recent_counts(int(day)))
        with torch.inference_mode():
            found[today] = mixture(torch.from_numpy(encoded[today]), counts).numpy()
    return found


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("left_out", [0, 2, 6])
def test_the_module_gives_the_shares_that_the_evaluation_ranks_by(tiny_mixed_trained, members, part, left_out):
    dataset, catalogue = tiny_mixed_trained.dataset, catalogue_of(tiny_mixed_trained.dataset)
    cases = contexts(dataset, part)
    assert any((history == 0).any() for history in cases.histories()) == (part == "test")
    scorers = members.scorers(tiny_mixed_trained.objective.scorers(catalogue))
    for seed in range(3):
        weights = random_weights(seed, left_out)
        network = tiny_mixed_trained.objective.network
        module = Mixture(network, members.neighbours(weights), dataset.items_per_domain, RECENT, weights).eval()
        found = shares_of_module(module, members, cases, tiny_mixed_trained)
        for domain in range(3):
            wanted = MixtureScorer(scorers, weights)(cases, domain)
            np.testing.assert_allclose(found[:, catalogue.columns(domain)], wanted, rtol=1e-4, atol=1e-7)


def test_a_run_with_a_mixture_ranks_by_it_first(tiny_mixed_trained, members, tiny_weights):
    catalogue = catalogue_of(tiny_mixed_trained.dataset)
    found = scorers_of(tiny_mixed_trained, catalogue)
    assert list(found) == [MIXED, "cross", "single"]
    cases = contexts(tiny_mixed_trained.dataset, "test")
    scorers = members.scorers(tiny_mixed_trained.objective.scorers(catalogue))
    for domain in range(3):
        wanted = MixtureScorer(scorers, tiny_weights)(cases, domain)
        np.testing.assert_array_equal(found[MIXED](cases, domain), wanted)


def test_a_run_without_a_mixture_ranks_and_serves_by_the_network_alone(tiny_trained):
    assert not serves_mixture(tiny_trained.run.config)
    assert list(scorers_of(tiny_trained, catalogue_of(tiny_trained.dataset))) == ["cross", "single"]
    served = served_ranker(tiny_trained)
    assert isinstance(served.ranker, Ranker)
    assert (served.mixture, served.half_lives, len(served.recent)) == (None, (), 0)


def test_the_default_serves_a_mixture_and_paper_does_not():
    from training.config import default, paper

    assert serves_mixture(default())
    assert not serves_mixture(paper())
    assert not serves_mixture(TrainingConfig(mixture=False))


def test_the_served_module_holds_members_with_a_weight_and_nothing_else(mixed_run, members):
    weights = [{CROSS: 1.0}, {"recent_60d": 0.5, OWN_NEIGHBOURS: 0.5}, {"recent_4d": 0.25, CROSS: 0.75}]
    trained = open_trained(mixed_run([{name: of_domain.get(name, 0.0) for name in NAMES} for of_domain in weights]))
    served = served_ranker(trained)
    assert isinstance(served.ranker, MixedRanker)
    assert not served.ranker.training
    assert served.mixture == dict(zip(trained.dataset.domains, weights, strict=True))
    assert served.half_lives == (4.0, 60.0)
    newest = max(int(trained.dataset.part(part).timestamp.max()) for part in ("train", "validation", "test"))
    counts = members.recent_counts(newest // MICROSECONDS_PER_DAY + 1)
    np.testing.assert_array_equal(served.recent, counts[[HALF_LIVES.index(4.0), HALF_LIVES.index(60.0)]])
    assert served.ranker.mixture.neighbours.domains == [2]
    assert served.ranker.mixture.singles == []


@pytest.mark.parametrize("name", [CROSS, NEIGHBOURS])
def test_a_mixture_without_recent_members_reads_no_counts(mixed_run, name):
    weights = [{one: float(one == name) for one in NAMES}] * 3
    served = served_ranker(open_trained(mixed_run(weights)))
    assert served.half_lives == ()
    assert len(served.recent) == 0


def test_weights_are_chosen_alike_every_time_and_kept_beside_the_run(mixed_run, tiny_weights):
    path = mixed_run(tiny_weights)
    chosen = choose_mixture(path)
    first = (path / MIXTURE).read_bytes()
    (path / MIXTURE).unlink()
    assert choose_mixture(path) == chosen
    assert (path / MIXTURE).read_bytes() == first
    assert served_mixture(open_trained(path)).weights == chosen
    assert chosen != tiny_weights
    assert any(weights[name] > 0 for weights in chosen for name in RECENT)


def test_weights_are_chosen_on_validation_alone(mixed_run, tiny_weights, tiny_timed_dataset, tmp_path):
    """Every test event becomes another item: the same weights. Every validation event does: others."""
    path = mixed_run(tiny_weights)
    wanted = choose_mixture(path)
    for part, same in (("test", True), ("validation", False)):
        changed = shutil.copytree(tiny_timed_dataset.path, tmp_path / part)
        item = np.load(changed / part / "item_index.npy")
        # Within its domain.
        first, last = np.array([0, 1, 121, 135]), np.array([0, 120, 134, 140])
        domain = np.load(changed / part / "domain.npy")
        other = np.where(item > 0, first[domain] + last[domain] - item, 0)
        np.save(changed / part / "item_index.npy", other.astype(np.int32))
        assert (choose_mixture(path, changed) == wanted) == same


def test_missing_weights_say_how_to_go_on(mixed_run, tiny_weights):
    path = mixed_run(tiny_weights)
    (path / MIXTURE).unlink()
    trained = open_trained(path)
    for ask in (served_ranker, lambda run: scorers_of(run, catalogue_of(run.dataset))):
        with pytest.raises(WorkFailed, match=r"`syncrec train --resume` goes on"):
            ask(trained)


def test_another_window_of_the_network_is_the_window_of_the_neighbours(tiny_mixed_trained):
    config = replace(tiny_mixed_trained.run.config, max_history=2)
    trained = replace(tiny_mixed_trained, run=replace(tiny_mixed_trained.run, config=config))
    assert served_mixture(trained).members.knn.config.history == 2
