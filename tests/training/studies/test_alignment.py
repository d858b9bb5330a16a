import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from syncrec.cli import main
from training.ranking import single_scorer
from training.run import open_trained
from training.studies.alignment import (
    COMPARED,
    FEWEST_USERS,
    Pairs,
    _one_per_user,
    linear_cka,
    measures,
    mutual_information,
    representations,
)
from training.studies.pieces import train_piece
from training.task import catalogue_of


def vectors(users, dim, seed):
    return np.random.default_rng(seed).standard_normal((users, dim)).astype(np.float32)


def test_cka_is_one_up_to_rotation_scale_and_shift_and_near_zero_without_relation():
    single = vectors(4000, 8, 0)
    rotation = np.linalg.qr(vectors(8, 8, 1))[0]
    assert linear_cka(Pairs(single, 3 * single @ rotation + 5)) == pytest.approx(1, abs=1e-5)
    assert linear_cka(Pairs(single, vectors(4000, 8, 2))) < 0.01
    assert linear_cka(Pairs(np.ones((5, 2), dtype=np.float32), vectors(5, 2, 0))) == 0


def test_the_bound_of_independent_vectors_is_not_above_zero():
    bound, error = mutual_information(Pairs(vectors(1024, 8, 0), vectors(1024, 8, 1)))
    assert bound < 2 * error


def test_the_bound_of_equal_vectors_comes_near_the_most_that_it_can_be():
    same = vectors(1024, 16, 0)
    bound, _ = mutual_information(Pairs(same, same))
    assert 0.75 * np.log(COMPARED) < bound <= np.log(COMPARED)


def test_the_bound_stays_below_a_known_mutual_information_and_grows_with_it():
    """Of Gaussian vectors with correlation r it is -dim/2 log(1 - r²)."""
    bounds = []
    for correlation in (0.3, 0.7):
        single = vectors(4096, 4, 0)
        cross = correlation * single + (1 - correlation**2) ** 0.5 * vectors(4096, 4, 1)
        bound, error = mutual_information(Pairs(single, cross))
        assert bound < -2 * np.log(1 - correlation**2) + 2 * error
        bounds.append(bound)
    assert 0 < bounds[0] < bounds[1] / 2


def test_too_few_users_have_no_bound():
    few = vectors(FEWEST_USERS - 1, 4, 0)
    assert measures(Pairs(few, few))["mutual_information"] is None
    assert measures(Pairs(few[:1], few[:1]))["cka"] is None


def test_representations_are_those_that_are_scored(tiny_trained):
    """A user's vector times the items' is what SDSR ranks by."""
    network = tiny_trained.objective.network
    pairs = representations(tiny_trained, 1000)["Games"]
    cases = _one_per_user(tiny_trained.dataset, 6)
    cases = cases.take(np.flatnonzero(cases.target_domain == 2))
    columns = catalogue_of(tiny_trained.dataset).columns(1)
    scores = pairs.single @ network.item_vectors()[columns].detach().numpy().T
    expected = single_scorer(network, catalogue_of(tiny_trained.dataset), 6)(cases, 1)
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_user_has_one_event_of_a_domain_the_newest_and_reads_one_of_it_before(tiny_dataset):
    cases = _one_per_user(tiny_dataset, 6)
    pairs = list(zip(cases.user, cases.target_domain, strict=True))
    assert len(set(pairs)) == len(pairs) > 0
    item_domain = tiny_dataset.item_domain()
    for history, domain in zip(cases.histories(), cases.target_domain, strict=True):
        assert domain in item_domain[history[history > 0][-6:]]


def test_the_study_compares_two_runs_and_draws(tiny_run, tiny_config, tiny_dataset, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "with.run")
    other = tmp_path / "without.run"
    train_piece(other, replace(tiny_config, mutual_information=0.0), tiny_dataset)
    assert main(["study", "alignment", str(run), str(other), "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())["runs"]
    assert list(found) == ["η = 0.1 (with.run)", "η = 0 (without.run)"]
    assert 0 < found["η = 0 (without.run)"]["domains"]["Games"]["cka"] <= 1
    assert (run / "alignment.png").read_bytes().startswith(b"\x89PNG")
    assert open_trained(other).run.config.mutual_information == 0
