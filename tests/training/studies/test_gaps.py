import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from syncrec.cli import main
from training.baselines.config import sasrec_softmax_per_domain
from training.cases import contexts
from training.run import LOG, open_trained
from training.studies.gaps import held_out_gaps, read_epochs
from training.studies.held_out import gap_per_domain, known_cases, rank_correlation
from training.studies.pieces import train_piece


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("gaps") / "syncrec.run")


@pytest.fixture(scope="module")
def singles(tmp_path_factory, tiny_dataset):
    path = tmp_path_factory.mktemp("gaps") / "singles.run"
    config = replace(
        sasrec_softmax_per_domain(), dim=8, layers=1, max_history=6, batch_windows=24, epochs=2, learning_rate=0.01
    )
    train_piece(path, config, tiny_dataset)
    return path


def test_the_study_tells_all_gaps_of_every_domain_and_draws(run, singles, tmp_path, capsys):
    assert main(["study", "gaps", str(run), str(singles), "--json", str(tmp_path / "g.json")]) == 0
    found = json.loads((tmp_path / "g.json").read_text())
    assert list(found["domains"]) == ["Books", "Games", "Toys"]
    state = open_trained(run).objective.per_domain()
    assert found["domains"]["Games"]["lambda"] == state["lambda"][1]
    assert len(found["epochs"]) == 2
    assert set(found["spearman"]) == {"towers", "singles"}
    assert (run / "gaps.png").read_bytes().startswith(b"\x89PNG")
    assert "Spearman" in capsys.readouterr().out


def test_the_gap_of_the_towers_is_the_difference_of_their_losses(run, singles):
    """Against the softmax of each case's scores, written out."""
    from scipy.special import log_softmax

    from training.task import catalogue_of

    trained = open_trained(run)
    dataset, catalogue = trained.dataset, catalogue_of(trained.dataset)
    scorers = trained.objective.scorers(catalogue)
    cases = known_cases(dataset, 1000)
    differences = {domain: [] for domain in range(3)}
    for case in range(len(cases)):
        one, domain = cases.take(np.array([case])), int(cases.target_domain[case]) - 1
        place = cases.target[case] - catalogue.columns(domain).start
        cost = {task: -log_softmax(scorer(one, domain)[0].astype(float))[place] for task, scorer in scorers.items()}
        differences[domain].append(cost["single"] - cost["cross"])
    found = held_out_gaps(trained, open_trained(singles), 1000)["towers"]
    assert [gap.value for gap in found] == pytest.approx([np.mean(of) for of in differences.values()], abs=1e-6)


def test_epochs_hold_the_mean_of_phi_and_the_last_of_the_others(run):
    steps = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    first = [step for step in steps if step["kind"] == "step" and step["epoch"] == 1]
    found = read_epochs(run / LOG, ["Books", "Games", "Toys"])[0]
    assert found["phi"]["Toys"] == pytest.approx(np.mean([step["phi"]["Toys"] for step in first]))
    assert found["weight"] == first[-1]["weight"]


def test_runs_that_give_no_probabilities_or_are_of_other_methods_are_refused(run, singles, capsys):
    assert main(["study", "gaps", str(singles), str(singles)]) == 2
    assert "must be a run of SyNCRec" in capsys.readouterr().err
    assert main(["study", "gaps", str(run), str(run)]) == 2
    assert "must be a run of sasrec-ss-per-domain" in capsys.readouterr().err


def test_known_cases_have_a_known_target_and_history(tiny_dataset):
    cases = known_cases(tiny_dataset, 1000)
    assert 0 < len(cases) < len(contexts(tiny_dataset, "test"))
    assert (cases.target > 0).all()
    assert all(history.any() for history in cases.histories())
    assert np.bincount(known_cases(tiny_dataset, 5).target_domain).max() == 5


def test_a_gap_is_a_mean_per_domain(tiny_dataset):
    cases = known_cases(tiny_dataset, 1000)
    found = gap_per_domain(cases.target_domain.astype(float), np.ones(len(cases)), cases, 4)
    assert [one and one.value for one in found] == [0, 1, 2, None]


def test_rank_correlation_needs_three_that_differ():
    assert rank_correlation([1, 2, 3], [2, 4, 9]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 2], [1, 2]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
