import shutil

import numpy as np
import pytest

import training.case_results
from formats.errors import WorkFailed, WrongUse
from training.case_results import case_results, write_case_results
from training.case_table import KEY
from training.evaluate import Protocol, score_part
from training.run import BEST, open_trained
from training.task import drops_repeats


@pytest.fixture
def run(tiny_run, tmp_path):
    return shutil.copytree(tiny_run, tmp_path / "r", ignore=shutil.ignore_patterns("cases-*"))


@pytest.fixture
def scored(monkeypatch):
    """How often something was scored."""
    calls = []

    def counted(*given):
        calls.append(given)
        return score_part(*given)

    monkeypatch.setattr(training.case_results, "score_part", counted)
    return calls


def test_a_run_is_evaluated_once_and_read_from_then_on(run, scored, tiny_trained):
    first, again = case_results(run, "test"), case_results(run, "test")
    assert len(scored) == 1
    evaluation = score_part(tiny_trained, Protocol("test", drops_repeats(tiny_trained.dataset)))
    for found in (first, again):
        assert found.name == "r:cross"
        assert found.protocol == evaluation.protocol
        assert found.fingerprint == tiny_trained.dataset.fingerprint
        assert found.cases.equals(evaluation.table().select(KEY))
        np.testing.assert_array_equal(found.ranks, evaluation.answers["cross"].ranks)


@pytest.mark.parametrize("scorer", ["single", "popularity"])
def test_every_scorer_of_the_evaluation_can_be_read(run, tiny_trained, scorer):
    evaluation = score_part(tiny_trained, Protocol("test", drops_repeats(tiny_trained.dataset)))
    np.testing.assert_array_equal(case_results(run, "test", scorer).ranks, evaluation.answers[scorer].ranks)


def test_validation_and_test_have_a_file_each(run):
    assert len(case_results(run, "validation").cases) != len(case_results(run, "test").cases)
    assert {file.name for file in run.glob("cases-*")} == {"cases-validation.parquet", "cases-test.parquet"}


def test_a_run_that_was_trained_on_is_evaluated_again(run, scored):
    case_results(run, "test")
    content = bytearray((run / BEST).read_bytes())
    (run / BEST).write_bytes(content + b" ")
    with pytest.raises(WorkFailed, match="damaged checkpoint"):  # it was opened: the kept results are of another model
        case_results(run, "test")


def test_an_evaluation_asked_otherwise_is_read_as_it_was_asked(run, scored):
    protocol = Protocol("test", exclude_seen=True, max_cases=3)
    write_case_results(run, score_part(open_trained(run), protocol))
    found = case_results(run, "test")
    assert not scored
    assert found.protocol == protocol
    assert found.cases.group_by("domain").len()["len"].max() == 3


def test_an_unknown_scorer_is_wrong_use_and_names_the_known_ones(run):
    with pytest.raises(WrongUse, match="ranks by cross, single, popularity, not by x"):
        case_results(run, "test", "x")


@pytest.mark.parametrize("kept", [(0, 40), (60, None)])
def test_a_damaged_file_is_one_clear_line(run, kept):
    case_results(run, "test")
    file = run / "cases-test.parquet"
    file.write_bytes(file.read_bytes()[slice(*kept)])
    with pytest.raises(WorkFailed, match=r"cases-test\.parquet: damaged: .*remove it to evaluate again"):
        case_results(run, "test")


def test_a_parquet_file_of_something_else_is_evaluated_over(run, scored):
    case_results(run, "test").cases.write_parquet(run / "cases-test.parquet")
    case_results(run, "test")
    assert len(scored) == 2


def test_no_run_is_one_clear_line(tmp_path):
    with pytest.raises(WorkFailed, match="not a run"):
        case_results(tmp_path / "away", "test")
