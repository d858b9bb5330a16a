"""A recommender that knows nothing but item ids: it finds what an order by id gives away."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from training.cases import Cases
from training.memory_based.newest_events import newest_events
from training.ranking import Catalogue

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class IdNeighbours:
    """Items in the order of their ids, round and round: behind the highest of a domain comes its lowest.

    place: of each item among those of its domain, from 0, [items + 1].
    """

    catalogue: Catalogue
    place: Ints

    def after(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """The next higher id than the user's last of the domain, then the one after that; a `training.ranking.Scorer`."""
        return self._score(cases, domain, 1)

    def before(self, cases: Cases, domain: int) -> NDArray[np.float32]:
        """The next lower one first; a `training.ranking.Scorer`."""
        return self._score(cases, domain, -1)

    def _score(self, cases: Cases, domain: int, step: int) -> NDArray[np.float32]:
        columns = self.catalogue.columns(domain)
        last = newest_events(cases, columns, longest=1)
        place = self.place[columns]
        scores = np.zeros((len(cases), len(place)), dtype=np.float32)  # nothing to go by without an event of the domain
        away = step * (place - self.place[last.item_index][:, None])
        scores[np.diff(last.offsets) > 0] = -((away - 1) % len(place))
        return scores


def id_neighbours(item_ids: pl.Series, catalogue: Catalogue) -> IdNeighbours:
    """Order ids as people count: shorter ones first, then by character, so that 9 is before 10.

    Args:
        item_ids: in order of item_index, which starts at 1.
        catalogue: of the same items.
    """
    ids = item_ids.to_numpy().astype(np.str_)
    place = np.zeros(len(ids) + 1, dtype=np.int64)
    for domain in range(len(catalogue.items_per_domain)):
        columns = catalogue.columns(domain)
        own = ids[columns.start - 1 : columns.stop - 1]
        place[columns][np.lexsort((own, np.char.str_len(own)))] = np.arange(len(own))
    return IdNeighbours(catalogue, place)
