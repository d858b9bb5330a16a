"""Simulated users with known truth, as sums per user: what the proofs of the analysis and `experiment simulate` draw.

Users differ in how often they come (lognormal) and in how readily they click (Beta), and stay as they are: that is what
breaks tests that count impressions.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Population:
    """Whom to draw.

    requests: mean requests of a user over the time of a test.
    activity: sigma of the lognormal of requests.
    positions: items shown per request.
    ctr: mean click rate of users.
    kappa: of Beta(ctr * kappa, (1 - ctr) * kappa); the smaller, the more users differ.
    """

    requests: float = 6.0
    activity: float = 1.0
    positions: int = 10
    ctr: float = 0.05
    kappa: float = 50.0

    def draw(self, shape: int | tuple[int, ...], rng: np.random.Generator) -> "People":
        """So many users."""
        rate = self.requests * rng.lognormal(-(self.activity**2) / 2, self.activity, shape)
        return People(self, rate, rng.beta(self.ctr * self.kappa, (1 - self.ctr) * self.kappa, shape))


@dataclass(frozen=True, eq=False)
class People:
    """Drawn users.

    rate: requests of each in the time of a test, in the mean, [users].
    ctr: its click rate, [users].
    """

    population: Population
    rate: Floats
    ctr: Floats

    def act(self, rng: np.random.Generator, time: ArrayLike = 1.0, lift: ArrayLike = 0.0) -> dict[str, Floats]:
        """What they do: users (1 if it came at all), requests, impressions, clicks, each [users].

        Args:
            time: how long, in times of a test; of each user or of all.
            lift: relative change of the click rate; of each user or of all.
        """
        requests = rng.poisson(self.rate * np.asarray(time))
        impressions = requests * self.population.positions
        clicks = rng.binomial(impressions, np.minimum(self.ctr * (1 + np.asarray(lift)), 1))
        columns = {"users": requests > 0, "requests": requests, "impressions": impressions, "clicks": clicks}
        return {name: column.astype(np.float64) for name, column in columns.items()}
