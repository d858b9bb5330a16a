"""The service over a bundle that serves a mixture: it answers what the run answers, with the bundle's counts."""

import json
import shutil

import numpy as np
import pytest

from formats.bundle import MANIFEST, WARMUP, read_bundle, sealed_manifest
from formats.errors import WorkFailed
from formats.manifests import sha256_of
from service.ranking.catalog import read_catalog
from service.ranking.ranker import rank_batch
from service.ranking.session import open_session
from service.ranking.warmup import check_warmup, difference
from tests.service.running import serve, wait_for
from training.export import ask
from training.served_ranker import served_ranker


@pytest.fixture(scope="module")
def running(tiny_mixed_bundle, redis_server):
    with serve(models_dir=tiny_mixed_bundle.path.parent, redis_url=redis_server, providers="cpu") as service:
        yield service


@pytest.fixture(scope="module")
def answered(tiny_mixed_trained):
    """What the run answers to a history, seen items excluded: per domain, item numbers and shares."""
    served = served_ranker(tiny_mixed_trained)
    config, dataset = tiny_mixed_trained.run.config, tiny_mixed_trained.dataset

    def answer(history, k):
        row = np.array(history, dtype=np.int32)
        scores, index = ask(served, [row], [row], config.max_history, dataset.items, k)
        return [
            [(int(i), float(s)) for i, s in zip(*both, strict=True) if i]
            for both in zip(index[0], scores[0], strict=True)
        ]

    return answer


@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize(
    "history",
    [[3], [121, 130], [1, 125, 140, 7, 3, 122, 9, 8, 5], [135, 136, 137, 138, 139, 140], [4] * 8],
    ids=["one", "one domain", "more than the window", "all of a domain", "again and again"],
)
def test_it_answers_the_same_items_and_shares_as_the_run(running, store, tiny_mixed_bundle, answered, history, k):
    ids = list(tiny_mixed_bundle.items().select("domain", "item_id").iter_rows())
    store("u1", [ids[item - 1] for item in history])
    answer = running.recommend(user_id="u1", k=k).json()
    assert answer["source"] == "model"
    for domain, wanted in zip(tiny_mixed_bundle.manifest.domains, answered(history, k), strict=True):
        found = answer["domains"][domain]
        assert len(found) == len(wanted)
        np.testing.assert_allclose([item["score"] for item in found], [share for _, share in wanted], rtol=1e-4)
        share_of = {
            ids[item - 1][1]: share for item, share in answered(history, 100)[list(answer["domains"]).index(domain)]
        }
        # Equal shares, as of items that no member knows, may stand in any order.
        np.testing.assert_allclose(
            [share_of[item["item_id"]] for item in found], [share for _, share in wanted], rtol=1e-4
        )


def test_what_happens_now_moves_the_answer_of_the_model(running, store, tiny_mixed_bundle):
    """Recent events are counted live; an item that came after the model enters its lists by them."""
    ids = list(tiny_mixed_bundle.items().select("domain", "item_id").iter_rows())
    weights = tiny_mixed_bundle.manifest.mixture
    domain = max(weights, key=lambda name: sum(weights[name].get(f"recent_{days}d", 0) for days in (4, 14, 60)))
    assert any(name.startswith("recent") and weight for name, weight in weights[domain].items())
    store("u1", [ids[2]])
    own = [item_id for name, item_id in ids if name == domain]
    before = [item["item_id"] for item in running.recommend(user_id="u1", k=100).json()["domains"][domain]]
    last = before[-1] if before[-1] in own else own[-1]

    def place(item_id):
        answer = running.recommend(user_id="u1", k=100).json()
        assert answer["source"] == "model"
        found = [item["item_id"] for item in answer["domains"][domain]]
        return found.index(item_id) if item_id in found else 1000

    was = place(last)
    for item_id in (last, "newer-than-the-model"):
        events = [
            {"event_id": f"{item_id}-{n}", "user_id": f"someone-{n}", "item_id": item_id, "domain": domain}
            for n in range(900)
        ]
        running.client.post("/events", json={"events": events})
    wait_for(lambda: place(last) < was)
    wait_for(lambda: place("newer-than-the-model") < was)


def test_without_a_known_event_popularity_answers(running):
    assert running.recommend(user_id="nobody").json()["source"] == "popularity"


def checked(bundle, recent=None):
    catalog, session = read_catalog(bundle), open_session(bundle, "cpu", 1)
    counts = bundle.recent() if recent is None else recent
    check_warmup(bundle, catalog, lambda queries: rank_batch(catalog, session, counts, queries))


def rewritten(bundle, tmp_path, edit):
    """The bundle with other recorded requests, as a program with a mistake would write them."""
    path = shutil.copytree(bundle.path, tmp_path / bundle.path.name)
    lines = [edit(json.loads(line)) for line in (path / WARMUP).read_text().splitlines()]
    (path / WARMUP).write_text("".join(json.dumps(line) + "\n" for line in lines))
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"][WARMUP] = sha256_of(path / WARMUP)
    (path / MANIFEST).write_bytes(sealed_manifest(manifest))
    return read_bundle(path)


def scaled(factor):
    def edit(request):
        request["answer"] = {
            domain: [(item, score * factor) for item, score in answer] for domain, answer in request["answer"].items()
        }
        return request

    return edit


def test_recorded_shares_come_out_again_and_others_are_refused(tiny_mixed_bundle, tmp_path):
    """Shares are far below 1, and so is the difference that matters."""
    checked(tiny_mixed_bundle)
    checked(rewritten(tiny_mixed_bundle, tmp_path / "near", scaled(1.002)))
    with pytest.raises(WorkFailed, match=r"warmup\.jsonl:1: .*score"):
        checked(rewritten(tiny_mixed_bundle, tmp_path / "far", scaled(1.02)))


def test_other_counts_than_the_recorded_ones_are_noticed(tiny_mixed_bundle):
    with pytest.raises(WorkFailed, match=r"warmup\.jsonl"):
        checked(tiny_mixed_bundle, tiny_mixed_bundle.recent()[::-1].copy())


def test_differences_of_shares_are_measured_by_the_first_place():
    recorded = {"a": 0.02, "b": 0.01, "c": 0.001}
    assert difference({"a": 0.0201, "b": 0.0101, "c": 0.0011}, recorded, shares=True) is None
    assert difference({"a": 0.0204, "b": 0.01, "c": 0.001}, recorded, shares=True) is not None
    assert difference({"b": 0.02, "a": 0.01, "c": 0.001}, recorded, shares=True) is not None
    assert difference({"a": 0.02, "b": 0.01, "d": 0.001}, recorded, shares=True) is None  # a tie below the cut
    assert difference({"a": 0.02, "d": 0.01, "c": 0.001}, recorded, shares=True) is not None
    assert difference({"b": 0.0, "a": 0.0}, {"a": 0.0, "b": 0.0}, shares=True) is None
    assert difference({"a": 1e-6, "b": 0.0}, {"a": 0.0, "b": 0.0}, shares=True) is not None
    assert difference({}, {}, shares=True) is None
