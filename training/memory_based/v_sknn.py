"""V-SkNN: what followed in the most similar sessions of others (Ludewig and Jannach 2018, "Evaluation of session-based
recommendation algorithms"), with the formulas that their framework session-rec has by default.

Here a session is some consecutive events of one user: of a case the newest ones; of training every user's events, cut from the
newest backwards. Of those sessions that share an item with the case's, the most recent are compared: the similarity adds up the
shared items' positions, the later the larger. The nearest then vote for their items, each with its similarity, reduced the
further back its newest shared item stands in the case's session.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from formats.errors import WrongUse
from training.cases import Cases
from training.dataset import Dataset
from training.memory_based.domains import columns_per_domain
from training.memory_based.groups import largest_of_each, place_in_group
from training.memory_based.incidence import incidence
from training.memory_based.newest_events import newest_events

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class VSknnConfig:
    """How sessions are cut, found and counted.

    Attributes:
        neighbours: so many most similar sessions vote (k).
        sample: so many of the most recent sessions that share an item are compared.
        session: longest session, in events.
        idf_weight: votes for an item are multiplied by 1 + idf_weight · ln(sessions / sessions with the item); 0: votes as they
            are.
        cross_domain: sessions are of events of all domains; otherwise of the domain that is scored alone.
    """

    neighbours: int
    sample: int
    session: int
    idf_weight: float
    cross_domain: bool

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        for name in ("neighbours", "sample", "session"):
            if getattr(self, name) < 1:
                raise WrongUse(f"{name}: must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.idf_weight < math.inf:
            raise WrongUse(f"idf_weight: must be at least 0, got {self.idf_weight}")


@dataclass(frozen=True)
class _Sessions:
    """Training sessions, the most recent first.

    readable: item indices that they are made of.
    items: sparse zeros and ones, [sessions, items + 1].
    by_item: the same by item, [items + 1, sessions].
    """

    readable: slice
    items: Any
    by_item: Any

    def idf(self, columns: slice) -> Floats:
        """Inverse frequency of these items among the sessions, [items]; an item of none counts as one of one: nobody votes for it."""
        frequency = np.diff(self.by_item.indptr)[columns]
        logarithms: Floats = np.log(np.maximum(self.items.shape[0], 1) / np.maximum(frequency, 1))
        return logarithms


@dataclass(frozen=True)
class VSknn:
    """The training sessions.

    columns: item indices of every domain.
    sessions: what is read for the scores of each domain.
    """

    config: VSknnConfig
    columns: tuple[slice, ...]
    sessions: tuple[_Sessions, ...]

    def scorer(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """Votes of the nearest sessions, [cases, items of the domain]; a `training.ranking.Scorer`."""
        sessions, columns = self.sessions[domain], self.columns[domain]
        steps, lengths = _steps(cases, sessions, self.config.session)
        case, session, similarity = self._nearest(steps, lengths, sessions)
        # The newest shared item has the smallest step, so the largest reciprocal.
        decay = _with_data(steps, 1 / steps.data)[case].multiply(sessions.items[session]).max(axis=1).toarray()
        votes = csr_array((similarity * decay, (case, session)), shape=(len(cases), sessions.items.shape[0]))
        scores: Floats = (votes @ sessions.items[:, columns]).toarray()
        return (scores * (1 + self.config.idf_weight * sessions.idf(columns))).astype(np.float32)

    def _nearest(self, steps: Any, lengths: Ints, sessions: _Sessions) -> tuple[Ints, Ints, Floats]:
        """Case, session and similarity of the neighbours of all cases, [pairs] each."""
        rows = np.repeat(np.arange(len(lengths)), np.diff(steps.indptr))
        shared = _with_data(steps, lengths[rows] + 1 - steps.data) @ sessions.by_item
        shared.sort_indices()
        case = np.repeat(np.arange(len(lengths)), np.diff(shared.indptr))
        sampled = place_in_group(case) < self.config.sample
        case, session = case[sampled], shared.indices[sampled]
        similarity = shared.data[sampled] / (lengths * np.diff(steps.indptr))[case]
        kept = largest_of_each(similarity, case, self.config.neighbours)
        return case[kept], session[kept], similarity[kept]


def _steps(cases: Cases, sessions: _Sessions, longest: int) -> tuple[Any, Ints]:
    """How far back each item of the cases' sessions stands, 1 for the newest event: sparse [cases, items + 1]; lengths, [cases]."""
    events = newest_events(cases, sessions.readable, longest)
    lengths = np.diff(events.offsets)
    items = sessions.items.shape[1]
    # Events come newest first, so the first of an item is the one that counts.
    distinct, first = np.unique(
        np.repeat(np.arange(len(cases)), lengths) * items + events.item_index, return_index=True
    )
    steps = csr_array((1.0 + events.place[first], np.divmod(distinct, items)), shape=(len(cases), items))
    return steps, lengths


def _with_data(matrix: Any, data: Floats) -> Any:
    return csr_array((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def fit_v_sknn(dataset: Dataset, config: VSknnConfig) -> VSknn:
    """Cut the training events into sessions."""
    columns = columns_per_domain(dataset)
    if config.cross_domain:
        sessions = (_cut(dataset, slice(1, dataset.items + 1), config.session),) * len(columns)
    else:
        sessions = tuple(_cut(dataset, own, config.session) for own in columns)
    return VSknn(config, columns, sessions)


def _cut(dataset: Dataset, readable: slice, longest: int) -> _Sessions:
    """All sessions of events with these items, at most so long."""
    train = dataset.train
    # Newest first, so that places count from there.
    newest = np.flatnonzero((train.item_index >= readable.start) & (train.item_index < readable.stop))[::-1]
    user = np.searchsorted(train.user_offsets, newest, side="right")
    begins = np.flatnonzero(place_in_group(-user) % longest == 0)
    items = incidence(train.item_index[newest], np.append(begins, len(newest)), dataset.items + 1)
    # A session is as old as its last event.
    recent = np.argsort(-train.timestamp[newest[begins]], kind="stable")
    return _Sessions(readable, items[recent], items[recent].T.tocsr())
