import signal

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from formats.errors import WorkFailed
from tests.reference.datasets import random_histories, write_dataset
from training.baselines.config import PerDomainConfig
from training.cases import contexts
from training.domain_view import one_domain
from training.evaluate import Validation
from training.loop import Stopped, Training
from training.methods import build_objective
from training.processes import Processes
from training.run import BEST, LAST, open_trained, read_checkpoint, write_run
from training.task import catalogue_of
from training.trainings import training_of

SIZES = {"A": 9, "B": 7, "C": 6}
CONFIG = PerDomainConfig(
    dim=8, layers=1, max_history=3, batch_windows=6, epochs=4, patience=2, learning_rate=0.02, dropout=0.2
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    histories = random_histories(tuple(SIZES.values()), users=24, longest=12, seed=3)
    return write_dataset(
        tmp_path_factory.mktemp("per-domain") / "small.dataset",
        SIZES,
        histories,
        validation=[[1 + user % 22, 1 + (5 * user) % 22] for user in range(24)],
        test=[[1 + (7 * user) % 22, (0, 2)] for user in range(24)],
    )


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    path = tmp_path_factory.mktemp("per-domain") / "a.run"
    path.mkdir()
    write_run(path, CONFIG, dataset)
    progress = []
    training = training_of(dataset, CONFIG, path, Processes(), progress.append)
    score = training.train()
    return path, training, score, progress


def test_the_networks_share_no_parameter(dataset):
    objective = build_objective(CONFIG, dataset)
    storages = [{parameter.untyped_storage().data_ptr() for parameter in part.parameters()} for part in objective.parts]
    assert len(storages) == 3
    assert not storages[0] & storages[1]
    assert not storages[0] & storages[2]
    assert not storages[1] & storages[2]
    for part, items in zip(objective.parts, SIZES.values(), strict=True):
        assert len(part.network.item_vectors()) == items + 2


@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_network_is_what_training_on_its_domain_alone_gives(dataset, run, tmp_path, number):
    """To the bit, its own best epoch included."""
    path, training, _, _ = run
    alone = Training(one_domain(dataset, number), CONFIG.of_domain(number), tmp_path, Processes(), lambda _: None)
    alone.train()
    ours, _ = read_checkpoint(path / BEST)
    expected, notes = read_checkpoint(tmp_path / BEST)
    for name, values in expected.items():
        assert_array_equal(ours[f"parts.{number - 1}.{name}"], values)
    assert training.best_epochs[dataset.domains[number - 1]] == notes["epoch"]


def test_the_score_is_the_mean_of_the_domains(run):
    path, _, score, _ = run
    scores = [read_checkpoint(path / f"domain-{number}" / BEST)[1]["validation_ndcg_at_10"] for number in (1, 2, 3)]
    assert score == pytest.approx(np.mean(scores))


def test_domains_may_have_different_best_epochs(run):
    _, training, _, _ = run
    assert len(set(training.best_epochs.values())) > 1
    assert all(f"{epoch} ({name})" in training.chosen() for name, epoch in training.best_epochs.items())


def test_progress_says_which_domain_is_trained(run):
    *_, progress = run
    parts = [now.part for now in progress]
    assert sorted(set(parts)) == list(SIZES)
    assert parts == sorted(parts)


def test_a_domain_is_ranked_by_its_own_network_from_its_own_events(dataset, run):
    """And by popularity where there is no such event, whatever else the user did."""
    trained = open_trained(run[0])
    catalogue, cases = catalogue_of(dataset), contexts(dataset, "test")
    score = trained.objective.scorers(catalogue)["single"]
    without = 0
    for number in (1, 2, 3):
        view = one_domain(dataset, number)
        own = np.flatnonzero(cases.target_domain == number)
        alone, of_view = trained.objective.parts[number - 1], catalogue_of(view)
        found = score(cases.take(own), number - 1)
        assert found.shape[1] == list(SIZES.values())[number - 1]
        view_cases = contexts(view, "test")
        for row, case in enumerate(view_cases.take(np.array([n])) for n in range(len(view_cases))):
            known = case.history(0).any()
            expected = alone.scorers(of_view)["cross"](case, 0) if known else of_view.popular(case, 0)
            assert_allclose(found[row], expected[0], atol=1e-5)
            without += not known
    assert without


def test_validation_of_the_whole_is_the_mean_of_the_domains(dataset, run):
    path, _, score, _ = run
    assert Validation(dataset, 10**6, 0).score(open_trained(path).objective) == pytest.approx(score)


def test_a_run_that_was_stopped_in_its_second_domain_has_no_network_yet(dataset, tmp_path):
    def report(now):
        if now.part == "B":
            signal.raise_signal(signal.SIGINT)

    write_run(tmp_path, CONFIG, dataset)
    training = training_of(dataset, CONFIG, tmp_path, Processes(), report)
    with pytest.raises(Stopped):
        training.train()
    assert training.position() == "in B, after step 1 of epoch 1"
    assert (tmp_path / "domain-2" / LAST).exists()
    assert not (tmp_path / "domain-3").exists()
    with pytest.raises(WorkFailed, match=r"best\.safetensors: no such checkpoint"):
        open_trained(tmp_path)


def test_no_batch_is_for_all_domains(dataset):
    with pytest.raises(TypeError, match="batches of its own"):
        build_objective(CONFIG, dataset)(None, Processes())
