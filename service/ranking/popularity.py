"""What live popularity answers: the fallback list, and items that are newer than the model, among the model's own."""

from collections.abc import Sequence

import numpy as np

from service.ranking.popularity_view import PopularityView, RankedDomain
from service.ranking.query import DomainList, Query


def most_popular(view: PopularityView, query: Query) -> list[DomainList]:
    """The k most popular items that `query` allows, per domain of the catalogue. The score is the decayed count."""
    lists = []
    for number, ranked in enumerate(view.domains):
        exclude = np.concatenate([query.exclude, *query.exclude_new[number : number + 1]])
        if query.restricted[number]:
            items, counts = ranked.best_among(query.include, query.k, exclude)
        else:
            items, counts = ranked.best(query.k, exclude)
        lists.append(DomainList(items.tolist(), counts, ranked.new_ids))
    return lists


def with_new_items(lists: Sequence[DomainList], view: PopularityView, query: Query) -> list[DomainList]:
    """A model's lists with the items that came after it, where its mixture's counts of recent events rank them."""
    return [
        _entered(one, ranked, query, number) if len(ranked.entering) and not query.restricted[number] else one
        for number, (one, ranked) in enumerate(zip(lists, view.domains, strict=True))
    ]


def _entered(one: DomainList, ranked: RankedDomain, query: Query, number: int) -> DomainList:
    allowed = ~np.isin(ranked.entering, query.exclude_new[number])
    items = np.concatenate([np.array(one.item_index, dtype=np.int32), ranked.entering[allowed]])
    scores = np.concatenate([one.scores, ranked.entering_shares[allowed]])
    order = np.argsort(-scores, kind="stable")[: query.k]
    return DomainList(items[order].tolist(), scores[order], ranked.new_ids)
