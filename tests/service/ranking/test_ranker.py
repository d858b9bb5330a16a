"""Catalogue, session, warm-up and batches of a real bundle."""

import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from formats import event_ties
from formats.bundle import read_bundle
from formats.errors import WorkFailed
from formats.event_ties import item_hashes
from service.errors import ModelFailed
from service.ranking import catalog as catalog_module
from service.ranking.catalog import NO_ITEMS, read_catalog
from service.ranking.popularity import most_popular
from service.ranking.query import Query
from service.ranking.ranker import load_bundle, open_ranker, rank_batch
from service.ranking.session import CPU, CUDA, open_session
from service.ranking.warmup import check_warmup
from service.settings import Settings
from tests.service.small_bundle import DOMAINS, all_items, ids, make_bundle, reference_list
from tests.service.views import NO_COUNTS, view_of

NOWHERE = (False,) * len(DOMAINS)


@pytest.fixture(scope="module")
def bundle(models):
    return read_bundle(models / "small-1")


@pytest.fixture(scope="module")
def catalog(bundle):
    return read_catalog(bundle)


@pytest.fixture(scope="module")
def session(bundle):
    return open_session(bundle, "cpu", 1)


def array(*item_index):
    return np.array(item_index, dtype=np.int32)


def query(*history, k=10, exclude=NO_ITEMS, restricted=NOWHERE, include=NO_ITEMS):
    return Query(array(*history), exclude, restricted, include, k)


def test_every_item_is_found_by_id_and_by_hash(catalog):
    for index, (domain, item_id) in enumerate(all_items(), start=1):
        assert catalog.item_index(domain, item_id) == index
        assert catalog.item_ids[index] == item_id
    wanted = np.arange(1, len(all_items()) + 1)
    np.testing.assert_array_equal(catalog.by_hash(item_hashes(all_items())), wanted)


def test_unknown_items_and_hashes_have_index_0(catalog):
    assert catalog.item_index("Books", "nothing") == 0
    hashes = np.array([0, 1, 2**64 - 1, *item_hashes([("Books", "T1"), ("Books", "B1")])], dtype=np.uint64)
    assert catalog.by_hash(hashes).tolist() == [0, 0, 0, 0, catalog.item_index("Books", "B1")]
    assert catalog.by_hash(np.zeros(0, dtype=np.uint64)).tolist() == []


def test_an_id_of_two_domains_is_two_items(catalog):
    assert catalog.in_any_domain("both") == [4, 44]
    assert catalog.in_any_domain("nothing") == []


def test_two_items_of_one_hash_are_refused_by_name(bundle, monkeypatch):
    def colliding(items):
        hashes = event_ties.item_hashes(items)
        hashes[7] = hashes[50]
        return hashes

    monkeypatch.setattr(catalog_module, "item_hashes", colliding)
    with pytest.raises(WorkFailed, match=r"items\.parquet: item_id: items .*'B7' of 'Books'") as refused:
        read_catalog(bundle)
    assert "'T10' of 'Toys'" in str(refused.value)


def test_a_mixed_batch_answers_each_query_as_if_it_were_alone(catalog, session):
    queries = [
        query(1, 5, 50, k=3, exclude=array(1, 5, 50)),
        query(k=100),
        query(66, k=1, restricted=(True, False, True), include=array(3, 4, 5)),
        query(*range(1, 40), k=10, exclude=array(*range(1, 40))),
        query(0, 0, 7, k=10),
        query(2, k=5, exclude=array(3), restricted=(True, True, True), include=array(3, 4, 44)),
    ]
    together = rank_batch(catalog, session, NO_COUNTS, queries)
    for one, ranked in zip(queries, together, strict=True):
        (alone,) = rank_batch(catalog, session, NO_COUNTS, [one])
        for number, domain in enumerate(DOMAINS):
            inside = {
                catalog.item_ids[i] for i in one.include if catalog.bounds(domain)[0] <= i < catalog.bounds(domain)[1]
            }
            wanted = reference_list(
                one.history,
                domain,
                one.k,
                {
                    catalog.item_ids[i]
                    for i in one.exclude
                    if catalog.bounds(domain)[0] <= i < catalog.bounds(domain)[1]
                },
                inside if one.restricted[number] else None,
            )
            for answer in (ranked[number], alone[number]):
                assert [catalog.item_ids[i] for i in answer.item_index] == [item_id for item_id, _ in wanted]
                np.testing.assert_allclose(answer.scores, [score for _, score in wanted], rtol=1e-5, atol=1e-6)


def test_popularity_obeys_the_same_filters_as_the_model(bundle, catalog, session):
    view = view_of(bundle, catalog)
    chance = np.random.default_rng(1)
    for _ in range(50):
        one = query(
            1,
            k=int(chance.integers(1, 101)),
            exclude=chance.integers(0, 71, size=chance.integers(0, 60)).astype(np.int32),
            restricted=tuple(chance.random(3) < 0.5),
            include=chance.integers(0, 71, size=chance.integers(0, 60)).astype(np.int32),
        )
        everything = Query(one.history, one.exclude, one.restricted, one.include, 100)
        (ranked,) = rank_batch(catalog, session, NO_COUNTS, [everything])
        for model, popular in zip(ranked, most_popular(view, one), strict=True):
            assert popular.item_index == sorted(model.item_index)[: one.k]
            np.testing.assert_allclose(popular.scores, catalog.popularity[popular.item_index], rtol=1e-6)


class _Broken:
    def run(self, batch):
        shape = (len(batch.history), len(DOMAINS), batch.k)
        return np.full(shape, np.nan, dtype=np.float32), np.ones(shape, dtype=np.int32)


def test_scores_that_are_no_numbers_are_a_failure_of_the_model(catalog):
    with pytest.raises(ModelFailed):
        rank_batch(catalog, _Broken(), NO_COUNTS, [query(1)])


async def test_what_onnx_runtime_raises_is_a_failure_of_the_model(bundle):
    settings = Settings(providers="cpu")
    async with open_ranker(bundle, settings, lambda: NO_COUNTS, lambda _: None) as ranker:
        with pytest.raises(ModelFailed):
            await ranker.rank(query(10_000), time.monotonic() + 10)
        assert await ranker.rank(query(1), time.monotonic() + 10)


@pytest.mark.parametrize("asked", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_here_is_refused(bundle, asked, tmp_path):
    if CUDA in __import__("formats.runtime").runtime.import_onnxruntime().get_available_providers():
        pytest.skip("this ONNX Runtime may have the provider")
    with pytest.raises(WorkFailed, match=f"SYNCREC_PROVIDERS={asked}: .* took {CPU}") as refused:
        load_bundle(bundle, Settings(providers=asked, tensorrt_cache_dir=tmp_path / "engines"))
    assert "\n" not in str(refused.value)


def test_what_runs_is_what_the_session_says(bundle):
    session = open_session(bundle, "auto", 1)
    assert session.asked == "auto"
    assert session.got == session._session.get_providers()[0]


def test_a_graph_that_is_none_is_told_in_one_line(tmp_path, bundle):
    copy = type(bundle)(tmp_path, bundle.manifest)
    copy.graph.write_bytes(b"nonsense")
    with pytest.raises(WorkFailed, match=r"ranker\.onnx") as refused:
        open_session(copy, "cpu", 1)
    assert "\n" not in str(refused.value)


def test_answers_as_recorded_are_accepted(bundle, catalog, session):
    check_warmup(bundle, catalog, lambda queries: rank_batch(catalog, session, NO_COUNTS, queries))


@pytest.mark.parametrize(("shift", "accepted"), [(1e-4, True), (0.01, False), (-0.01, False)])
def test_scores_that_differ_from_the_recorded_ones_are_refused(tmp_path, shift, accepted):
    bundle = make_bundle(tmp_path, warmup_shift=shift)
    catalog, session = read_catalog(bundle), open_session(bundle, "cpu", 1)
    if accepted:
        check_warmup(bundle, catalog, lambda queries: rank_batch(catalog, session, NO_COUNTS, queries))
    else:
        with pytest.raises(WorkFailed, match=r"warmup\.jsonl:1: .* Books: score"):
            check_warmup(bundle, catalog, lambda queries: rank_batch(catalog, session, NO_COUNTS, queries))


def changed(catalog, session, change):
    """The real answers, with one thing changed in the first domain of each."""

    def run(queries):
        answers = rank_batch(catalog, session, NO_COUNTS, queries)
        for answer in answers:
            answer[0] = change(answer[0])
        return answers

    return run


def test_other_items_than_recorded_are_refused(bundle, catalog, session):
    def swap(answer):
        return type(answer)(answer.item_index[::-1], answer.scores)

    with pytest.raises(WorkFailed, match="is not where it was"):
        check_warmup(bundle, catalog, changed(catalog, session, swap))


def test_a_missing_item_is_refused(bundle, catalog, session):
    def drop(answer):
        return type(answer)(answer.item_index[:-1], answer.scores[:-1])

    with pytest.raises(WorkFailed, match="9 items instead of 10"):
        check_warmup(bundle, catalog, changed(catalog, session, drop))


def test_items_of_nearly_equal_scores_may_change_places():
    from service.ranking.warmup import difference

    recorded = {"a": 3.0, "b": 2.0002, "c": 2.0001, "d": 1.0001}
    assert difference({"a": 3.0, "c": 2.0002, "b": 2.0001, "d": 1.0001}, recorded) is None
    assert difference({"a": 3.0, "b": 2.0002, "c": 2.0001, "e": 1.0002}, recorded) is None
    assert difference({"a": 3.0, "b": 2.0002, "e": 2.0001, "c": 1.0001}, recorded) is not None
    assert difference({}, {}) is None


def test_categories_group_items_and_items_without_one_are_in_none(tmp_path):
    bundle = make_bundle(tmp_path)
    items = pl.read_parquet(bundle.path / "items.parquet")
    some = items.with_columns(category=pl.when(pl.col("item_index") > 2).then("category"))
    some.write_parquet(bundle.path / "items.parquet")
    catalog = read_catalog(bundle)
    everything = catalog.in_categories(["red", "green", "blue"])
    assert everything.tolist() == list(range(3, len(items) + 1))
    assert catalog.in_categories([]).tolist() == catalog.in_categories(["violet"]).tolist() == []


def test_importing_the_service_leaves_an_empty_home_empty_and_loads_no_torch(tmp_path, models):
    code = (
        "import sys; from pathlib import Path; from service.app import create_app; "
        "from service.ranking.session import open_session; from formats.bundle import newest_bundle; "
        f"open_session(newest_bundle(Path({str(models)!r})), 'cpu', 1); "
        "assert not {'torch', 'onnx', 'model', 'training'} & set(sys.modules)"
    )
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run([sys.executable, "-c", code], check=True, env={"HOME": str(home), "PATH": "/usr/bin:/bin"})
    assert list(home.iterdir()) == []


def test_ids_of_a_domain_are_in_order_of_popularity(catalog):
    for domain in DOMAINS:
        first, after = catalog.bounds(domain)
        assert catalog.item_ids[first:after] == ids(domain)
        assert (np.diff(catalog.popularity[first:after]) <= 0).all()
