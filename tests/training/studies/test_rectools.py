import json
import sys

import pytest

from syncrec.cli import main
from tests.reference.datasets import random_histories, write_dataset
from training.studies import rectools

RECOMMENDS = """#!{python}
import csv, pathlib, sys
folder = pathlib.Path(sys.argv[-2])
asked = list(csv.DictReader((folder / "asked.csv").open()))
with (folder / "recommended.csv").open("w") as out:
    out.write("user_id,item_id,rank\\n")
    for row in asked:
        for rank in range(1, 11):
            out.write(f"{{row['user_id']}},{{rank}},{{rank}}\\n")
"""


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    histories = [[*history, 1] for history in random_histories((20,), users=30, longest=7, seed=3)]
    parts = [[h[:-2] for h in histories], [h[-2:-1] for h in histories], [h[-1:] for h in histories]]
    written = write_dataset(tmp_path / "one.dataset", {"A": 20}, parts[0], validation=parts[1], test=parts[2])
    manifest = json.loads((written.path / "manifest.json").read_text())
    manifest["split"] = {"kind": "leave-one-out", "validation_from": None, "test_from": None}
    (written.path / "manifest.json").write_text(json.dumps(manifest))
    monkeypatch.setattr(rectools, "OURS", type(rectools.OURS)(dim=8, layers=1, candidates=100, every_window=False))
    return written.path


def interpreter(folder, text):
    file = folder / "python"
    file.write_text(text.format(python=sys.executable))
    file.chmod(0o755)
    return str(file)


def study(dataset, python, work, *more):
    words = [
        "study",
        "rectools",
        str(dataset),
        "--python",
        python,
        "--work",
        str(work),
        "--epochs",
        "1",
        "--seeds",
        "1",
    ]
    return main([*words, *more])


def test_their_ranks_are_read_and_a_difference_beyond_the_bound_fails(dataset, tmp_path, capsys):
    """Every target is item 1, which the other side puts first; ours has seen one epoch."""
    found = tmp_path / "found.json"
    assert study(dataset, interpreter(tmp_path, RECOMMENDS), tmp_path / "work", "--json", str(found)) == 1
    content = json.loads(found.read_text())
    assert content["ndcg@10"]["rectools"] == [1.0]
    assert content["failed"] == ["agreement"]
    assert content["cases"] == 30
    history = (tmp_path / "work" / "rectools-1" / "history.csv").read_text().splitlines()
    train = (tmp_path / "work" / "rectools-1" / "train.csv").read_text().splitlines()
    assert len(history) - 1 == len(train) - 1 + 30  # the event of validation is history, and not trained on
    assert "agreement" in capsys.readouterr().err


def test_a_failing_interpreter_is_told_in_one_line(dataset, tmp_path, capsys):
    broken = "#!{python}\nraise SystemExit('no RecTools here')\n"
    assert study(dataset, interpreter(tmp_path, broken), tmp_path / "work") == 1
    assert "no RecTools here" in capsys.readouterr().err


def test_several_domains_are_refused(tmp_path, capsys):
    written = write_dataset(tmp_path / "two.dataset", {"A": 5, "B": 5}, [[1, 2, 6, 7]] * 5, test=[[3]] * 5)
    assert study(written.path, sys.executable, tmp_path / "work") == 2
    assert "one domain" in capsys.readouterr().err
