"""Means per domain over the judged events of several seeds, with how sure they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.bootstrap import Estimate, user_bootstrap
from training.studies.known_truth import CDSR, INDEPENDENT, JOINT, SDSR

Floats = NDArray[np.float64]

# What the mixed sequences of all domains are worth to a domain, in nats of expected NLL; below 0: negative transfer.
ORACLE_GAP: Final = pl.col(f"{INDEPENDENT}_nll") - pl.col(f"{JOINT}_nll")
# The same of what happened, as somebody without the truth would measure it.
SEEN_GAP: Final = pl.col(f"{INDEPENDENT}_seen") - pl.col(f"{JOINT}_seen")
# Between the two towers of one SyNCRec, on held-out events: what lambda estimates from the losses of training.
TOWER_GAP: Final = pl.col(f"{SDSR}_nll") - pl.col(f"{CDSR}_nll")
# Of the bootstrap, for dozens of means: an end of an interval then wavers by a thirtieth of its length.
_DRAWS: Final = 2000
# Normal quantile, one-sided 5 %.
_ONE_SIDED: Final = 1.644854


@dataclass(frozen=True)
class DomainMean:
    """The mean of one domain.

    by_seed: of each seed, [seeds].
    estimate: over the events of all seeds; its interval is over users.
    """

    by_seed: Floats
    estimate: Estimate

    @property
    def value(self) -> float:
        """The mean."""
        return self.estimate.value

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval; NaN with too few users for one."""
        return self.estimate.interval.low if self.estimate.interval else float("nan")

    @property
    def high(self) -> float:
        """Upper end."""
        return self.estimate.interval.high if self.estimate.interval else float("nan")

    @property
    def at_least(self) -> float:
        """One-sided 95 % bound from below, from the standard error."""
        error = self.estimate.interval.standard_error if self.estimate.interval else float("nan")
        return self.value - _ONE_SIDED * error

    def to_json(self) -> dict[str, Any]:
        """Value, interval, seeds."""
        return {"value": self.value, "low": self.low, "high": self.high, "by_seed": self.by_seed.tolist()}


def domain_means(tables: Sequence[pl.DataFrame], value: pl.Expr) -> list[DomainMean]:
    """The mean of a value in every domain.

    Args:
        tables: judged events, one table a seed (`training.studies.judged`); users of two seeds are different people.
        value: of each event, made of the tables' columns.
    """
    values = [table.select(value.alias("value"))["value"].to_numpy() for table in tables]
    domain = [table["domain"].to_numpy() for table in tables]
    user = [table["user"].to_numpy() * len(tables) + seed for seed, table in enumerate(tables)]
    domains = 1 + max(int(numbers.max()) for numbers in domain)
    found = user_bootstrap(np.concatenate(values), np.concatenate(user), np.concatenate(domain), domains, _DRAWS)
    by_seed = np.stack([_means(*pair, domains) for pair in zip(values, domain, strict=True)])
    return [DomainMean(own, one) for own, one in zip(by_seed.T, found.groups, strict=True) if one is not None]


def harm(differences: Floats) -> float:
    """What a model loses in the domains in which it loses, summed over domains; gains elsewhere make up for nothing.

    Args:
        differences: quality less that of the independent models, [domains].
    """
    return float(np.maximum(0, -differences).sum())


def _means(values: Floats, domain: NDArray[np.int64], domains: int) -> Floats:
    return np.bincount(domain, values, domains) / np.bincount(domain, minlength=domains)
