import json

import numpy as np
import polars as pl
import pytest

from syncrec.cli import main
from tests.training.studies.conftest import SMALL
from training.case_results import CaseResults
from training.evaluate import Protocol
from training.studies import dissimilar
from training.studies.dissimilar import JOINT, METHODS, UNIFORM, per_case
from training.studies.known_worlds import world_dataset
from training.studies.race import Entrant
from training.truth import five_domains


def results(rows, ranks):
    names = ["A", "B", "C"]
    cases = pl.DataFrame(
        {
            "user_id": [user for user, _, _ in rows],
            "domain": pl.Series([domain for _, domain, _ in rows], dtype=pl.Enum(names)),
            "place": [place for _, _, place in rows],
        }
    )
    return CaseResults("r", "f", Protocol(), cases, np.array(ranks, dtype=float))


def test_cases_of_the_other_domains_belong_together_whatever_lies_between():
    before = results([("u", "A", 3), ("u", "C", 4), ("u", "B", 5), ("v", "A", 0)], [1, 9, 11, 1])
    after = results([("v", "C", 0), ("v", "A", 7), ("u", "A", 3), ("u", "B", 9)], [9, 11, 1, 11])
    was, now = per_case([before], {"C"}), per_case([after, after], {"C"})
    assert was.select("user_id", "domain").rows() == now.select("user_id", "domain").rows()
    assert was["value"].to_list() == [1, 0, 1]
    assert now["value"].to_list() == [1, 0, 0]


@pytest.fixture
def quick(monkeypatch, in_process):
    joint = Entrant("joint", "sasrec-ss", [SMALL])
    uniform = Entrant("uniform", "default", [(*SMALL, "weight_floor=1", "mixture=false")])
    default = Entrant("default", "default", [SMALL])
    known = {JOINT.name: joint, UNIFORM.name: uniform, "default": default}
    monkeypatch.setattr(dissimilar, "JOINT", joint)
    monkeypatch.setattr(dissimilar, "UNIFORM", uniform)
    monkeypatch.setattr(dissimilar, "DEFAULT", default)
    methods = {name: method._replace(entrant=known[method.entrant.name]) for name, method in METHODS.items()}
    monkeypatch.setattr(dissimilar, "METHODS", methods)
    return in_process


def test_the_study_compares_the_other_domains_before_and_after(quick, tmp_path):
    dataset = world_dataset(five_domains(300, 0), tmp_path / "dataset")
    work = tmp_path / "work"
    words = ["study", "dissimilar", str(dataset.path), "--domain", "half-related", "--work", str(work), "--seeds", "1"]
    assert main([*words, "--json", str(tmp_path / "d.json")]) == 0
    found = json.loads((tmp_path / "d.json").read_text())
    assert list(found["worlds"]) == ["half-related exchanged", "noise added"]
    for methods in found["worlds"].values():
        assert list(methods) == list(METHODS)
        for told in methods.values():
            others = [one for one in told["domains"].values() if one]
            assert len(others) == len(dataset.domains) - 1
            assert told["macro"]["value"] == pytest.approx(np.mean([one["value"] for one in others]))
            assert told["macro"]["after"] == pytest.approx(np.mean([one["after"] for one in others]))
    assert set(found["weights"]["noise added"]) == {*dataset.domains, "(noise)"}
    assert (work / "dissimilar.png").read_bytes().startswith(b"\x89PNG")
    before = len(quick)
    assert main(words) == 0
    assert len(quick) == before


def test_a_domain_that_is_not_there_is_refused(tmp_path, tiny_dataset, capsys):
    words = ["study", "dissimilar", str(tiny_dataset.path), "--domain", "X", "--work", str(tmp_path)]
    assert main(words) == 2
    assert "no domain X" in capsys.readouterr().err
