"""EASE: the closed-form linear item model of every domain (Steck 2019, "Embarrassingly shallow autoencoders for sparse data").

With X the users' items as zeros and ones, P = (X'X + regularization · I)^-1 and B = I - P / diag(P), by column, a history h scores
h B: every item is predicted from the others alone. Where a domain has fewer users than items, the same P is had from the smaller
inverse K = (XX' + regularization · I)^-1 by Woodbury's identity, P = (I - X'KX) / regularization.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import eye_array

from formats.errors import WrongUse
from training.cases import Cases
from training.dataset import Dataset
from training.memory_based.domains import columns_per_domain
from training.memory_based.incidence import incidence
from training.memory_based.newest_events import newest_events

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Rows of the products for diag(P) at a time, which bounds their memory.
USERS_PER_BLOCK: Final = 512


@dataclass(frozen=True)
class EaseConfig:
    """The one parameter of the model, and what may be inverted.

    Attributes:
        regularization: added to the diagonal, in events; larger for fewer users' evidence per item.
        max_items: side of the largest matrix that is inverted. A domain with more items and more users than this is modelled
            on its so many most popular items; the others follow below all of these, by popularity. Time grows with the cube.
    """

    regularization: float
    max_items: int

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the field.
        """
        if not 0 < self.regularization < math.inf:
            raise WrongUse(f"regularization: must be above 0, got {self.regularization}")
        if self.max_items < 1:
            raise WrongUse(f"max_items: must be at least 1, got {self.max_items}")


@dataclass(frozen=True)
class _ByItems:
    """P itself, [items, items]."""

    inverse: Floats

    @property
    def diagonal(self) -> Floats:
        return self.inverse.diagonal()

    def product(self, histories: Any) -> Floats:
        """[cases, items] times P."""
        product: Floats = histories @ self.inverse
        return product


@dataclass(frozen=True)
class _ByUsers:
    """P through K, [users, users], and X, sparse [users, items]."""

    inverse: Floats
    chosen: Any
    regularization: float

    @property
    def diagonal(self) -> Floats:
        explained = np.zeros(self.chosen.shape[1])
        for first in range(0, len(self.inverse), USERS_PER_BLOCK):
            block = slice(first, first + USERS_PER_BLOCK)
            explained += self.chosen[block].multiply(self.inverse[block] @ self.chosen).sum(axis=0)
        return (1 - explained) / self.regularization

    def product(self, histories: Any) -> Floats:
        """[cases, items] times P."""
        product: Floats = histories.toarray() - (histories @ self.chosen.T @ self.inverse) @ self.chosen
        return product / self.regularization


@dataclass(frozen=True)
class _Domain:
    """One domain.

    columns: item indices.
    modelled: which of its items B holds, ascending, [modelled].
    precision: P of these.
    diagonal: of P, [modelled].
    popularity: users of each item as a share of one more than the most popular has, so below 1, [items of the domain].
    """

    columns: slice
    modelled: Ints
    precision: _ByItems | _ByUsers
    diagonal: Floats
    popularity: Floats

    def scores(self, cases: Cases) -> Floats:
        """[cases, items of the domain]."""
        events = newest_events(cases, self.columns, None)
        had = incidence(events.item_index - self.columns.start, events.offsets, len(self.popularity))[:, self.modelled]
        modelled = had.toarray() - self.precision.product(had) / self.diagonal
        scores: Floats = modelled.min(axis=1, keepdims=True) - 1 + self.popularity
        scores[:, self.modelled] = modelled
        return scores


@dataclass(frozen=True)
class Ease:
    """The fitted domains."""

    domains: tuple[_Domain, ...]

    def scorer(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """Predictions from the known items of the whole history, [cases, items of the domain]; a `training.ranking.Scorer`."""
        return self.domains[domain].scores(cases).astype(np.float32)


def fit_ease(dataset: Dataset, config: EaseConfig) -> Ease:
    """Invert one matrix per domain."""
    train = dataset.train
    chosen = incidence(train.item_index, train.user_offsets, dataset.items + 1)
    return Ease(tuple(_fit_domain(chosen[:, own], own, config) for own in columns_per_domain(dataset)))


def _fit_domain(chosen: Any, columns: slice, config: EaseConfig) -> _Domain:
    """Fit one domain of which `chosen` is X, [all users, items]."""
    users = chosen.sum(axis=0)
    modelled = np.arange(chosen.shape[1])
    chosen = chosen[chosen.sum(axis=1) > 0]
    if min(chosen.shape) > config.max_items:
        modelled = np.sort(np.argsort(-users, kind="stable")[: config.max_items])
        chosen = chosen[:, modelled]
    precision = _precision(chosen, config.regularization)
    return _Domain(columns, modelled, precision, precision.diagonal, users / (users.max() + 1))


def _precision(chosen: Any, regularization: float) -> _ByItems | _ByUsers:
    if chosen.shape[0] < chosen.shape[1]:
        return _ByUsers(_regular_inverse(chosen @ chosen.T, regularization), chosen, regularization)
    return _ByItems(_regular_inverse(chosen.T @ chosen, regularization))


def _regular_inverse(gram: Any, regularization: float) -> Floats:
    return np.linalg.inv((gram + regularization * eye_array(gram.shape[0])).toarray())
