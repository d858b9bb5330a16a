"""Ranker: catalogue, session and batcher as one thing: a query in, the best items per domain out."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from formats.bundle import Bundle
from formats.history import encode_histories
from service.errors import ModelFailed, ServiceError
from service.ranking.batcher import BatchTimes, MicroBatcher, Ran
from service.ranking.catalog import Catalog, read_catalog
from service.ranking.query import DomainList, Query
from service.ranking.session import Batch, OnnxSession, open_session
from service.ranking.warmup import check_warmup
from service.settings import Settings

Ranked = list[DomainList]


@dataclass(frozen=True)
class LoadedBundle:
    """A bundle in memory that answers as it did at export. One thread at a time may rank with it."""

    bundle: Bundle
    catalog: Catalog
    session: OnnxSession


@dataclass(frozen=True)
class Ranker:
    """Ranks with the model; all of a request is ranked by one bundle."""

    catalog: Catalog
    onnx_session: OnnxSession
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
    catalog: Catalog, session: OnnxSession, recent: NDArray[np.float32], queries: Sequence[Query]
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
    batch = Batch(
        history=encode_histories([query.history for query in queries], catalog.max_history, catalog.items),
        exclude=_pad([query.exclude for query in queries]),
        restricted=np.array([query.restricted for query in queries], dtype=np.bool_),
        include=_pad([query.include for query in queries]),
        k=max(query.k for query in queries),
        recent=recent,
    )
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


def _pad(rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Item indices of many queries, with 0 to the longest, [batch, at least 1]."""
    padded = np.zeros((len(rows), max(1, *map(len, rows))), dtype=np.int32)
    for place, row in zip(padded, rows, strict=True):
        place[: len(row)] = row
    return padded


def load_bundle(bundle: Bundle, settings: Settings) -> LoadedBundle:
    """Load a bundle and check that it answers as it was exported. Takes seconds for a large one.

    Raises:
        WorkFailed: the provider is not what was asked for, or the answers are not those recorded in the bundle.
    """
    catalog = read_catalog(bundle)
    session = open_session(bundle, settings.providers, settings.threads)
    # Answers were recorded with the counts of the export, whatever is popular now.
    recent = bundle.recent()
    check_warmup(bundle, catalog, lambda queries: rank_batch(catalog, session, recent, queries))
    return LoadedBundle(bundle, catalog, session)


@asynccontextmanager
async def open_ranker(
    loaded: LoadedBundle,
    settings: Settings,
    recent: Callable[[], NDArray[np.float32]],
    observe: Callable[[BatchTimes], None],
) -> AsyncIterator[Ranker]:
    """Rank until the block ends.

    Args:
        loaded: the model.
        settings: how batches are made.
        recent: the newest counts of recent events, asked for at each batch.
        observe: is told of each batch.
    """
    catalog, session = loaded.catalog, loaded.session

    def run(queries: Sequence[Query]) -> list[Ranked]:
        return rank_batch(catalog, session, recent(), queries)

    async with MicroBatcher(run, settings.max_batch, settings.max_wait_ms / 1000, settings.queue_limit, observe) as one:
        yield Ranker(catalog, session, one)
