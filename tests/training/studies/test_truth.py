"""`syncrec study truth` and `syncrec study estimators` at a tiny size, and their verdicts on made-up findings."""

import json
from dataclasses import replace

import numpy as np
import pytest

from syncrec import cli
from training.bootstrap import Estimate, Interval
from training.studies import known_truth, truth
from training.studies.estimator_findings import COSTS, ORACLE
from training.studies.known_truth import INDEPENDENT, JOINT, SERVED, TOWERS
from training.studies.oracle import DomainMean
from training.studies.truth_findings import FIVE, WORLDS, Found, Gaps, criteria

DOMAINS = ("half-related", "noise", "related-dense", "related-sparse", "unrelated-sequential")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(truth, "QUICK", known_truth.Effort(users=800, epochs=1))


@pytest.mark.usefixtures("tiny")
def test_the_study_of_truth_judges_all_worlds_and_goes_on_where_it_was(work, capsys, monkeypatch):
    words = ["study", "truth", "--quick", "--work", str(work), "--json", str(work / "truth.json")]
    assert cli.main(words) == 0
    captured = capsys.readouterr()
    found = json.loads((work / "truth.json").read_text())
    assert set(found["worlds"]) == set(WORLDS)
    five = found["worlds"][FIVE]
    assert tuple(five) == tuple(found["lambda"]) == DOMAINS
    for domain in five.values():
        assert domain["floor"]["value"] < min(domain["independent"]["value"], domain["joint"]["value"])
        assert domain["oracle"]["value"] == pytest.approx(domain["independent"]["value"] - domain["joint"]["value"])
    assert five["noise"]["floor"]["value"] == pytest.approx(np.log(60))
    assert [one["name"] for one in found["criteria"]] == _first_cells(captured.out)
    assert (work / "truth.png").read_bytes().startswith(b"\x89PNG")
    assert captured.err.count("training ") == 3 + 2 * (len(WORLDS) - 1)
    assert cli.main(words) == 0
    assert "training " not in capsys.readouterr().err
    monkeypatch.setattr(truth, "QUICK", known_truth.Effort(users=800, epochs=2))
    assert cli.main(words) == 2
    assert "--work" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny")
def test_the_study_of_estimators_tries_each_of_them_and_the_truth(work, capsys):
    words = ["study", "estimators", "--quick", "--work", str(work), "--json", str(work / "estimators.json")]
    assert cli.main(words) == 0
    found = json.loads((work / "estimators.json").read_text())
    assert list(found["estimators"]) == [ORACLE, *COSTS]
    assert tuple(found["domains"]) == DOMAINS
    for one in found["estimators"].values():
        assert np.isfinite(one["estimates"]).all()
        assert np.mean(one["weights"]) == pytest.approx(1)
        assert -1 <= one["spearman"][0] <= 1
        assert one["harm_after_remedy"][0] >= 0
    assert found["estimators"][ORACLE]["spearman"] == pytest.approx([1])
    similar = dict(zip(DOMAINS, found["estimators"]["co-occurrence"]["estimates"][0], strict=True))
    assert min(similar["related-sparse"], similar["related-dense"]) > max(
        similar["noise"], similar["unrelated-sequential"]
    )
    assert (work / "estimators.png").exists()
    assert "oracle gap" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--users", "-1"]])
def test_nothing_to_do_is_refused(words, tmp_path, capsys):
    assert cli.main(["study", "truth", "--work", str(tmp_path), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def mean(value, error=0.001):
    return DomainMean(np.array([value]), Estimate(value, Interval(value - 2 * error, value + 2 * error, 0.5, error)))


def means(*values):
    return [mean(value) for value in values]


def gaps(*oracle):
    some = means(1, 1, 1, 1, 1)
    return Gaps(DOMAINS, some, some, some, means(*oracle), some)


GOOD = Found(
    gaps={
        name: gaps(*values)
        for name, values in zip(WORLDS, [(-0.1, 0, -0.05, 0.1, -1), (0.1,) * 5, (0.1,) * 5, (-0.2,) * 5], strict=True)
    },
    lambdas=np.array([[-0.1, 0.01, -0.02, 0.3, -0.9]]),
    towers=means(-0.1, 0, -0.05, 0.1, -1),
    ndcg={name: means(0.4, 0.1, 0.4, 0.4, 0.6) for name in (INDEPENDENT, JOINT, SERVED, TOWERS)},
    changes={
        JOINT: means(-0.1, 0, -0.05, 0.1, -0.3),
        SERVED: means(0.01, 0, 0.01, 0.02, -0.001),
        TOWERS: means(0, 0, 0, 0, 0),
    },
    margins=means(0.01, 0.01, 0.01, 0.02, 0.003),
)


def failed(found):
    return [number for number, one in enumerate(criteria(found)) if not one.passed]


def test_findings_as_they_must_be_pass():
    assert failed(GOOD) == []


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"lambdas": np.array([[0.4, 0.01, -0.02, -0.3, -0.9]])}, 0),
        ({"lambdas": np.array([[-0.1, 0.06, -0.02, 0.3, -0.9]])}, 1),
        ({"lambdas": np.array([[-0.1, 0.01, -0.2, -0.001, -0.9]])}, 2),
        ({"gaps": {**GOOD.gaps, "all related": gaps(0.1, 0.1, -0.01, 0.1, 0.1)}}, 3),
        ({"gaps": {**GOOD.gaps, "all related, few events": gaps(-0.01, 0.1, 0.1, 0.1, 0.1)}}, 4),
        ({"gaps": {**GOOD.gaps, "all unrelated": gaps(0.01, -0.1, -0.1, -0.1, -0.1)}}, 5),
        ({"margins": means(0.01, 0.01, 0.001, 0.02, 0.003)}, 6),
        ({"changes": {**GOOD.changes, SERVED: means(0.01, 0, 0.01, 0.02, -0.06)}}, 7),
        ({"changes": {**GOOD.changes, SERVED: means(0.01, 0, 0.01, 0.001, 0)}}, 8),
    ],
)
def test_each_fault_fails_what_it_is_a_fault_of(changes, number):
    assert number in failed(replace(GOOD, **changes))


def test_a_gap_within_its_interval_is_no_fault():
    assert failed(replace(GOOD, gaps={**GOOD.gaps, "all related": gaps(-0.001, 0.1, 0.1, 0.1, 0.1)})) == []


def _first_cells(printed):
    """Of the last table's rows."""
    return [line.split("  ")[0].strip() for line in printed.rsplit("what must hold", 1)[1].strip().splitlines()[1:]]
