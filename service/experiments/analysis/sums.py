"""Sufficient statistics of user-level columns of one arm: all that ratios, CUPED and power need of millions of users."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tea_tasting.aggr import Aggregates

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sums:
    """Users of one arm, each counted once.

    columns: names, in the order of the arrays.
    n: users.
    mean: of each column, [columns].
    cross: sums of products of deviations from the means, [columns, columns].
    """

    columns: tuple[str, ...]
    n: int
    mean: Floats
    cross: Floats

    @classmethod
    def of(cls, columns: Mapping[str, ArrayLike]) -> "Sums":
        """Of one value a user in every column, each [users]; no users at all is fine."""
        values = np.stack([np.asarray(column, dtype=np.float64) for column in columns.values()])
        n = values.shape[1]
        mean = values.mean(axis=1) if n else np.zeros(len(values))
        deviations = values - mean[:, None]
        return cls(tuple(columns), n, mean, deviations @ deviations.T)

    def __add__(self, other: "Sums") -> "Sums":
        """Of these users and others. A user in both would be counted twice: days of one user are added up before."""
        if self.columns != other.columns:
            raise ValueError(f"sums of other columns: {', '.join(other.columns)}, not {', '.join(self.columns)}")
        n = self.n + other.n
        if n == 0:
            return self
        apart = other.mean - self.mean
        # Pairwise update (Chan, Golub and LeVeque): nothing cancels, however far the means are from zero.
        mean = self.mean + apart * (other.n / n)
        cross = self.cross + other.cross + np.outer(apart, apart) * (self.n * other.n / n)
        return Sums(self.columns, n, mean, cross)

    def total(self, column: str) -> float:
        """Sum over users."""
        return self.n * float(self.mean[self.columns.index(column)])

    def covariance(self, names: tuple[str, ...]) -> Floats:
        """Sample covariance, [names, names]; of at least two users."""
        places = [self.columns.index(name) for name in names]
        covariance: Floats = self.cross[np.ix_(places, places)] / (self.n - 1)
        return covariance

    def aggregates(self, names: tuple[str, ...]) -> Aggregates:
        """These columns as tea-tasting has them; of at least two users."""
        covariance = self.covariance(names)
        return Aggregates(
            count_=self.n,
            mean_={name: float(self.mean[self.columns.index(name)]) for name in names},
            var_={name: float(covariance[i, i]) for i, name in enumerate(names)},
            cov_={(a, b): float(covariance[i, j]) for i, a in enumerate(names) for j, b in enumerate(names) if i < j},
        )
