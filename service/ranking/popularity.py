"""The fallback: the most popular items of each domain, under the same filters as the model's answer."""

import numpy as np
from numpy.typing import NDArray

from service.ranking.catalog import Catalog
from service.ranking.query import DomainList, Query


def most_popular(catalog: Catalog, query: Query) -> list[DomainList]:
    """The k most popular items that `query` allows, per domain of the catalogue. The score is the popularity."""
    lists = []
    for number, restricted in enumerate(query.restricted):
        first, after = catalog.starts[number], catalog.starts[number + 1]
        candidates = _inside(query.include, first, after) if restricted else _head(query, first, after)
        # Within a domain, indices are in order of popularity.
        allowed = candidates[~np.isin(candidates, query.exclude)][: query.k]
        lists.append(DomainList(allowed.tolist(), catalog.popularity[allowed]))
    return lists


def _inside(items: NDArray[np.int32], first: int, after: int) -> NDArray[np.int32]:
    return np.unique(items[(items >= first) & (items < after)])


def _head(query: Query, first: int, after: int) -> NDArray[np.int32]:
    # Enough that k are left whatever is excluded; the whole domain may be long.
    return np.arange(first, min(after, first + query.k + len(query.exclude)), dtype=np.int32)
