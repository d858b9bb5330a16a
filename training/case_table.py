"""Cases as a table of one row each: who, what, how much was known, and the rank of the target by every scorer."""

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.cases import Cases
from training.dataset import Dataset
from training.metrics import Ranks
from training.ranking import Catalogue

KEY = ("user_id", "domain", "place")
_RANK = "rank_"


def case_table(dataset: Dataset, catalogue: Catalogue, cases: Cases, ranks: Mapping[str, Ranks]) -> pl.DataFrame:
    """A row for each case, in order.

    Args:
        dataset: the cases are of.
        catalogue: of its training data.
        cases: with cold targets among them.
        ranks: name of a scorer -> rank of every target, [cases].
    Returns:
        user_id, domain; place of the target among all events of its user, from 0 (with these three a case is the same in every
        run); timestamp, UTC; own_history: known events of the user in the target's domain before it; target_count: training
        events of the target, 0 = cold; rank_<scorer>: infinity where the target is cold.
    """
    domains = pl.Series(dataset.domains, dtype=pl.Enum(dataset.domains))
    return pl.DataFrame(
        {
            "user_id": dataset.all_user_ids.gather(cases.user),
            "domain": domains.gather(cases.target_domain.astype(np.int64) - 1),
            "place": (cases.position - cases.start).astype(np.int32),
            "timestamp": pl.Series(cases.timestamp[cases.position]).cast(pl.Datetime("us", "UTC")),
            "own_history": _known_in_own_domain(cases, len(dataset.domains)),
            "target_count": catalogue.popularity[cases.target].astype(np.int64),
            **{f"{_RANK}{name}": values for name, values in ranks.items()},
        }
    )


def ranks_of(table: pl.DataFrame, scorer: str) -> Ranks:
    """Ranks by one scorer, [cases]."""
    return table[f"{_RANK}{scorer}"].to_numpy()


def _known_in_own_domain(cases: Cases, domains: int) -> NDArray[np.int32]:
    known, found = cases.item_index > 0, np.zeros(len(cases), dtype=np.int32)
    for number in range(1, domains + 1):
        before = np.concatenate([[0], np.cumsum(known & (cases.domain == number))])
        own = cases.target_domain == number
        found[own] = before[cases.position[own]] - before[cases.start[own]]
    return found
