import json

import numpy as np
import polars as pl
import pytest

from syncrec.cli import main
from training.config import default
from training.studies import published

DOMAINS = ("Food", "Kitchen", "Beauty", "Electronics")


@pytest.fixture
def events(tmp_path):
    """Users of all four domains, several events a day: in the file by rising item."""
    random = np.random.default_rng(0)
    rows = [
        (f"u{user}", f"i{item:02}", domain, 86_400 * day)
        for user in range(40)
        for day in range(3)
        for domain in random.permutation(DOMAINS).tolist()
        for item in sorted(random.choice(15, 2, replace=False).tolist())
    ]
    file = tmp_path / "events.csv"
    pl.DataFrame(rows, schema=["user_id", "item_id", "domain", "timestamp"], orient="row").write_csv(file)
    return file


@pytest.fixture(autouse=True)
def small(monkeypatch):
    config = {"dim": 8, "layers": 1, "max_history": 6, "validation_cases": 50}
    monkeypatch.setattr(published, "default", lambda: type(default())(**config))


def test_both_pairs_are_tested_beside_the_published_numbers(events, tmp_path, capsys):
    found = tmp_path / "found.json"
    words = ["study", "published", str(events), "--work", str(tmp_path / "work"), "--epochs", "1", "--json", str(found)]
    assert main(words) == 0
    content = json.loads(found.read_text())
    assert set(content["domains"]) == set(DOMAINS)
    assert content["domains"]["Food"]["abxi"] == {"hr@5": 0.2519, "hr@10": 0.3243, "ndcg@10": 0.1971}
    for both in content["domains"].values():
        assert 0 <= both["ours"]["ndcg@10"] <= both["ours"]["hr@10"] <= 1
        assert both["ours"]["hr@5"] <= both["ours"]["hr@10"]
    assert "ABXI, published" in capsys.readouterr().out


def test_the_order_of_the_file_is_kept_where_it_is_asked_for(events, tmp_path):
    """The last event of a user is the last row, which the hash of a tie would mostly not choose."""
    kept = published._dataset(events, tmp_path / "file", ("Food", "Kitchen"), "file")
    rows = pl.read_csv(events).filter(pl.col("domain").is_in(["Food", "Kitchen"]))
    last = rows.group_by("user_id", maintain_order=True).last()
    ids = kept.catalogue()
    number = {(d, i): n for n, d, i in ids.select("item_index", "domain", "item_id").iter_rows()}
    wanted = dict(
        zip(
            last["user_id"],
            (number.get(key, 0) for key in zip(last["domain"], last["item_id"], strict=True)),
            strict=True,
        )
    )
    users = kept.all_user_ids.to_list()
    assert {users[n]: item for n, item in enumerate(kept.test.item_index.tolist())} == wanted
    by_hash = published._dataset(events, tmp_path / "time", ("Food", "Kitchen"), "time")
    assert by_hash.test.item_index.tolist() != kept.test.item_index.tolist()
    assert by_hash.train.events == kept.train.events
