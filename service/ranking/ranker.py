"""Ranker: catalogue, session and batcher as one thing: a query in, the best items per domain out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from formats.bundle import Bundle
from formats.history import encode_histories
from service.errors import ModelFailed, ServiceError
from service.ranking.batcher import BatchTimes, MicroBatcher, Ran
from service.ranking.bound_session import BoundSession, CountRun
from service.ranking.catalog import NO_ITEMS, Catalog, read_catalog
from service.ranking.gpu_session import is_wanted, open_gpu_session
from service.ranking.query import DomainList, Query
from service.ranking.session import Batch, GraphSession, open_session
from service.ranking.warmup import check_warmup
from service.settings import Settings

Ranked = list[DomainList]


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle in memory that answers as it did at export. One thread at a time may rank with it: on a GPU, who loaded it."""

    catalog: Catalog
    session: GraphSession


@dataclass(frozen=True)
class Ranker:
    """Ranks with the model; all of a request is ranked by one bundle."""

    catalog: Catalog
    onnx_session: GraphSession
    _batcher: MicroBatcher[Query, Ranked]

    async def rank(self, query: Query, deadline: float) -> Ran[Ranked]:
        """The best items of every domain of the catalogue.

        Args:
            query: what is asked.
            deadline: on the clock of time.monotonic.
        Raises:
            QueueFull: too many wait already.
            DeadlineExceeded: not ranked at the deadline.
            ModelFailed: ONNX Runtime raised, or a score is not a number.
        """
        try:
            return await self._batcher.submit(query, deadline)
        except ServiceError:
            raise
        except Exception as error:  # what ONNX Runtime raises has no common base below Exception
            raise ModelFailed(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def rank_batch(
    catalog: Catalog, session: GraphSession, recent: NDArray[np.float32], queries: Sequence[Query]
) -> list[Ranked]:
    """Rank many queries in one run of the graph, with the largest k of them; each answer is cut to its own.

    Args:
        catalog: the graph's.
        session: the graph.
        recent: how often each item was chosen lately, [half-lives, items + 2]; no rows if the graph reads none.
        queries: at least one.
    Raises:
        ModelFailed: a score is not a number.
    """
    batch = make_batch(catalog, recent, queries)
    scores, item_index = session.run(batch)
    if np.isnan(scores).any():
        raise ModelFailed("a score is not a number")
    found = (item_index > 0).sum(axis=2).tolist()  # places without a candidate are last
    indices = item_index.tolist()
    return [
        [
            DomainList(indices[row][number][: min(query.k, count)], scores[row, number, : min(query.k, count)])
            for number, count in enumerate(found[row])
        ]
        for row, query in enumerate(queries)
    ]


def make_batch(catalog: Catalog, recent: NDArray[np.float32], queries: Sequence[Query]) -> Batch:
    """The graph's inputs for many queries, with the largest k of them; as for `rank_batch`."""
    return Batch(
        history=encode_histories([query.history for query in queries], catalog.max_history, catalog.items),
        exclude=_pad([query.exclude for query in queries]),
        restricted=np.array([query.restricted for query in queries], dtype=np.bool_),
        include=_pad([query.include for query in queries]),
        k=max(query.k for query in queries),
        recent=recent,
    )


def _pad(rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Item indices of many queries, with 0 to the longest, [batch, at least 1]."""
    padded = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def load_bundle(bundle: Bundle, settings: Settings, count_run: CountRun = lambda _: None) -> LoadedBundle:
    """Load a bundle and check that it answers as it was exported. Takes seconds for a large one, minutes for TensorRT.

    Args:
        bundle: whose graph.
        settings: what runs it, and how.
        count_run: is told how a GPU ran each batch.
    Raises:
        WorkFailed: the provider is not what was asked for, or the answers are not those recorded in the bundle.
    """
    catalog = read_catalog(bundle)
    # Answers were recorded with the counts of the export, whatever is popular now.
    recent = bundle.recent()

    def check(session: GraphSession) -> None:
        check_warmup(bundle, catalog, lambda queries: rank_batch(catalog, session, recent, queries))

    def warm_and_check(session: BoundSession) -> None:
        nobody = Query(NO_ITEMS, NO_ITEMS, (False,) * len(catalog.domains), NO_ITEMS, 1)
        session.warm(make_batch(catalog, recent, [nobody]))
        check(session)

    if is_wanted(settings) and (bound := open_gpu_session(bundle, settings, count_run, warm_and_check)):
        return LoadedBundle(catalog, bound)
    session = open_session(bundle, settings.providers, settings.threads)
    check(session)
    return LoadedBundle(catalog, session)


@asynccontextmanager
async def open_ranker(
    bundle: Bundle,
    settings: Settings,
    recent: Callable[[], NDArray[np.float32]],
    observe: Callable[[BatchTimes], None],
    count_run: CountRun = lambda _: None,
) -> AsyncIterator[Ranker]:
    """Load a bundle, then rank with it until the block ends; for a GPU one thread does both.

    Args:
        bundle: the model.
        settings: what runs it, and how batches are made.
        recent: the newest counts of recent events, asked for at each batch.
        observe: is told of each batch.
        count_run: is told how a GPU ran each batch.
    Raises:
        WorkFailed: as `load_bundle`.
    """
    loaded: LoadedBundle

    def run(queries: Sequence[Query]) -> list[Ranked]:
        return rank_batch(loaded.catalog, loaded.session, recent(), queries)

    async with MicroBatcher(run, settings.max_batch, settings.max_wait_ms / 1000, settings.queue_limit, observe) as one:
        load = partial(load_bundle, bundle, settings, count_run)
        # A CUDA graph is its thread's. On the CPU threads that stay do it: of every new one malloc keeps memory for itself.
        loaded = await (one.call(load) if is_wanted(settings) else asyncio.to_thread(load))
        yield Ranker(loaded.catalog, loaded.session, one)
