"""The GPU's path on a CPU in its place: buckets, buffers, the owner thread, and what is tried when something does not work.

What only a GPU can show is in docs/gpu.md.
"""

import asyncio
import logging
import threading
import time
from collections import Counter

import numpy as np
import pytest

from formats.bundle import MAX_K, read_bundle
from formats.errors import WorkFailed
from service.ranking import gpu_session, ranker
from service.ranking.bound_session import WARMING_RUNS
from service.ranking.buckets import Buckets
from service.ranking.catalog import NO_ITEMS, read_catalog
from service.ranking.query import Query
from service.ranking.ranker import load_bundle, make_batch, open_ranker, rank_batch
from service.ranking.session import CPU, CUDA, TENSORRT, open_session
from service.settings import Settings
from tests.service.ranking.gpu_stand_in import cuda_here
from tests.service.small_bundle import DOMAINS, ITEMS_IN_ALL, make_bundle
from tests.service.views import NO_COUNTS


@pytest.fixture(scope="module")
def bundle(models):
    return read_bundle(models / "small-1")


@pytest.fixture(scope="module")
def catalog(bundle):
    return read_catalog(bundle)


@pytest.fixture(scope="module")
def plain(bundle):
    return open_session(bundle, "cpu", 1)


def settings_of(tmp_path, **given):
    return Settings(**{"providers": "cuda", "max_batch": 4, "tensorrt_cache_dir": tmp_path / "engines", **given})


def some_query(chance, excluded=None, included=None):
    return Query(
        history=chance.integers(0, ITEMS_IN_ALL + 1, size=chance.integers(0, 20)).astype(np.int32),
        exclude=chance.integers(0, ITEMS_IN_ALL + 1, size=excluded or chance.integers(0, 100)).astype(np.int32),
        restricted=tuple(chance.random(len(DOMAINS)) < 0.3),
        include=chance.integers(0, ITEMS_IN_ALL + 1, size=included or chance.integers(0, 40)).astype(np.int32),
        k=int(chance.integers(1, MAX_K + 1)),
    )


def same(one, other):
    for ours, theirs in zip(one, other, strict=True):
        for mine, wanted in zip(ours, theirs, strict=True):
            assert mine.item_index == wanted.item_index
            np.testing.assert_allclose(mine.scores, wanted.scores, rtol=1e-5, atol=1e-6)


def test_every_batch_is_answered_as_without_buckets(monkeypatch, tmp_path, bundle, catalog, plain):
    """Batches of all sizes in any order: what an earlier one left in a buffer must not show."""
    kinds = Counter()
    with cuda_here(monkeypatch):
        session = load_bundle(bundle, settings_of(tmp_path), lambda kind: kinds.update([kind])).session
    kinds.clear()
    chance = np.random.default_rng(5)
    answers = []
    for _ in range(60):
        queries = [some_query(chance) for _ in range(chance.integers(1, 5))]
        answers.append((queries, rank_batch(catalog, session, NO_COUNTS, queries)))
    for queries, answer in answers:  # compared at the end, so that an answer which is a view of a buffer shows
        same(answer, rank_batch(catalog, plain, NO_COUNTS, queries))
    assert kinds == {"graph": 60}


@pytest.mark.parametrize(("rows", "excluded", "included"), [(5, 1, 1), (1, 5000, 1), (2, 1, 1500)])
def test_what_no_bucket_holds_runs_unbound_and_is_counted(
    monkeypatch, tmp_path, bundle, catalog, plain, rows, excluded, included
):
    kinds = Counter()
    with cuda_here(monkeypatch) as made:
        session = load_bundle(bundle, settings_of(tmp_path), lambda kind: kinds.update([kind])).session
    kinds.clear()
    chance = np.random.default_rng(6)
    queries = [some_query(chance, excluded, included) for _ in range(rows)]
    same(
        rank_batch(catalog, session, NO_COUNTS, queries),
        rank_batch(catalog, plain, NO_COUNTS, queries),
    )
    assert kinds == {"unbound": 1}
    assert made[0].unbound_runs == 1


async def test_one_thread_opens_warms_and_runs_before_anyone_is_served(monkeypatch, tmp_path, bundle):
    opened_by = []
    load = ranker.load_bundle

    def noted(*given):
        opened_by.append(threading.get_ident())
        return load(*given)

    monkeypatch.setattr(ranker, "load_bundle", noted)
    with cuda_here(monkeypatch) as made:
        async with open_ranker(bundle, settings_of(tmp_path), lambda: NO_COUNTS, lambda _: None) as opened:
            (session,) = made
            warm = Counter(number for number, _ in session.runs)
            assert set(warm) == {str(n) for n in range(1, len(Buckets.up_to(4).shapes()) + 1)}
            assert min(warm.values()) >= WARMING_RUNS
            query = Query(np.array([1], dtype=np.int32), NO_ITEMS, (False,) * len(DOMAINS), NO_ITEMS, 3)
            await asyncio.gather(*(opened.rank(query, time.monotonic() + 10) for _ in range(20)))
            assert opened.onnx_session.got == CUDA
    assert {thread for _, thread in session.runs} == set(opened_by)
    assert threading.get_ident() not in opened_by


def test_counts_are_sent_to_the_device_only_when_they_are_others(monkeypatch, tmp_path, tiny_mixed_bundle):
    catalog = read_catalog(tiny_mixed_bundle)
    plain = open_session(tiny_mixed_bundle, "cpu", 1)
    with cuda_here(monkeypatch):
        session = load_bundle(tiny_mixed_bundle, settings_of(tmp_path)).session
    sent = []
    buffer = session._recent

    class Noted:
        def update_inplace(self, array):
            sent.append(array)
            buffer.update_inplace(array)

    session._recent = Noted()
    queries = [Query(np.array([3, 5], dtype=np.int32), NO_ITEMS, (False,) * len(catalog.domains), NO_ITEMS, 10)]
    first = tiny_mixed_bundle.recent()
    second = np.zeros_like(first)
    second[:, 7] = 1000
    for recent in (first, first, second, second, first):
        same(rank_batch(catalog, session, recent, queries), rank_batch(catalog, plain, recent, queries))
    assert [id(array) for array in sent] == [id(first), id(second), id(first)]


def test_a_recording_that_fails_is_followed_by_runs_without_one(monkeypatch, tmp_path, bundle, catalog, plain, caplog):
    kinds = Counter()
    caplog.set_level(logging.WARNING)
    with cuda_here(monkeypatch, breaks=lambda session: session.options[CUDA].get("enable_cuda_graph")) as made:
        session = load_bundle(bundle, settings_of(tmp_path), lambda kind: kinds.update([kind])).session
    assert len(made) == 2
    (record,) = caplog.records
    assert "CUDA without CUDA graphs is next: CUDA failure 900" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert set(kinds) == {"bound"}
    assert {number for number, _ in made[1].runs} == {"-1"}
    queries = [some_query(np.random.default_rng(7)) for _ in range(3)]
    same(rank_batch(catalog, session, NO_COUNTS, queries), rank_batch(catalog, plain, NO_COUNTS, queries))


def test_a_graph_that_cannot_be_recorded_at_all_is_loaded_without(monkeypatch, tmp_path, bundle):
    with cuda_here(monkeypatch, refuses=lambda providers: "enable_cuda_graph" in providers[CUDA]):
        session = load_bundle(bundle, settings_of(tmp_path)).session
    assert (session.got, session.graphs) == (CUDA, False)


def test_answers_other_than_recorded_are_refused_in_every_way(monkeypatch, tmp_path):
    bundle = make_bundle(tmp_path, warmup_shift=0.01)
    with cuda_here(monkeypatch) as made, pytest.raises(WorkFailed, match=r"warmup\.jsonl:1: .* Books: score"):
        load_bundle(bundle, settings_of(tmp_path))
    assert len(made) == 2


def test_tensorrt_is_half_as_precise_only_where_the_answers_stay(monkeypatch, tmp_path, bundle):
    settings = settings_of(tmp_path, providers="tensorrt")
    with cuda_here(monkeypatch) as made:
        assert load_bundle(bundle, settings).session.got == TENSORRT
    engine, wide = made
    assert engine.options[TENSORRT]["trt_fp16_enable"] == "1"
    assert engine.options[TENSORRT]["trt_engine_cache_path"] == str(settings.tensorrt_cache_dir)
    assert settings.tensorrt_cache_dir.is_dir()
    assert TENSORRT not in wide.options  # an engine would be built anew for every size

    check, refused = ranker.check_warmup, []

    def differs_once(*given):
        if not refused:
            refused.append(1)
            raise WorkFailed("another item")
        check(*given)

    monkeypatch.setattr(ranker, "check_warmup", differs_once)
    with cuda_here(monkeypatch) as made:
        assert load_bundle(bundle, settings).session.got == TENSORRT
    assert "trt_fp16_enable" not in made[-2].options[TENSORRT]


@pytest.mark.parametrize(("asked", "missing"), [("cuda", {CUDA}), ("tensorrt", {TENSORRT})])
def test_what_was_asked_for_and_is_not_there_is_refused_at_once(monkeypatch, tmp_path, bundle, asked, missing):
    with (
        cuda_here(monkeypatch, missing=missing) as made,
        pytest.raises(WorkFailed, match=f"SYNCREC_PROVIDERS={asked}: "),
    ):
        load_bundle(bundle, settings_of(tmp_path, providers=asked))
    assert len(made) == 1


def test_tensorrt_without_its_libraries_is_refused_in_one_line(monkeypatch, tmp_path, bundle):
    def refuse(*_):
        told = "onnxruntime_pybind_state.cc:729 RegisterTensorRTPluginsAsCustomOps Please install TensorRT libraries as ..."
        raise WorkFailed("it cannot be loaded") from RuntimeError(told)

    monkeypatch.setattr(gpu_session, "new_session", refuse)
    with pytest.raises(WorkFailed, match="SYNCREC_PROVIDERS=tensorrt: the libraries of TensorRT are not found"):
        load_bundle(bundle, settings_of(tmp_path, providers="tensorrt"))


def test_auto_goes_on_without_a_gpu_and_says_so(monkeypatch, tmp_path, bundle, caplog):
    monkeypatch.setattr(gpu_session, "is_wanted", lambda _: True)
    monkeypatch.setattr(ranker, "is_wanted", lambda _: True)
    with cuda_here(monkeypatch, missing={CUDA}):
        session = load_bundle(bundle, settings_of(tmp_path, providers="auto")).session
    assert (session.asked, session.got) == ("auto", CPU)
    (record,) = caplog.records
    assert f"{CPU} is next" in record.getMessage()


def test_memory_has_a_limit_only_where_one_is_set(tmp_path):
    for limit, wanted in ((0, None), (1 << 30, str(1 << 30))):
        for way in gpu_session.ways(settings_of(tmp_path, gpu_memory_bytes=limit)):
            assert way.providers[CUDA].get("gpu_mem_limit") == wanted
            assert way.providers[CUDA]["use_tf32"] == "0"


def test_a_batch_holds_its_queries_in_order(catalog):
    queries = [some_query(np.random.default_rng(n)) for n in range(3)]
    batch = make_batch(catalog, NO_COUNTS, queries)
    assert batch.k == max(query.k for query in queries)
    for row, query in enumerate(queries):
        assert batch.exclude[row, : len(query.exclude)].tolist() == query.exclude.tolist()
        assert not batch.exclude[row, len(query.exclude) :].any()
