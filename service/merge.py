"""Lists made of two: a model's with some of popularity's, and two rankers' interleaved."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.experiments.team_draft import team_draft
from service.ranking.catalog import Catalog
from service.ranking.query import DomainList
from service.recommendation import Source


@dataclass(frozen=True)
class Ranked:
    """What one ranker answers to a request, by domain, and what it took."""

    catalog: Catalog
    source: Source
    lists: list[tuple[str, DomainList]]
    queue_s: float
    inference_s: float


def blended(model: Sequence[DomainList], popular: Sequence[DomainList], share: float, k: int) -> list[DomainList]:
    """The model's lists with a share of popularity's items, spread evenly over the ranks; no item twice.

    A score stays that of the list it came from.
    """
    return [_blend(ours, theirs, share, k) for ours, theirs in zip(model, popular, strict=True)]


def interleaved(
    recommendation_id: str, catalog: Catalog, names: Sequence[str], ranked: Sequence[Ranked], k: int
) -> tuple[list[tuple[str, DomainList]], tuple[list[str], ...]]:
    """Two rankers' lists by team draft, the coin's seed being the recommendation's id.

    Args:
        recommendation_id: of the answer.
        catalog: in whose terms the lists are made; items that it does not have are named by their id.
        names: of the two variants.
        ranked: what they answer, control's first.
        k: items per domain.
    Returns:
        The lists by domain, and of each item whose it is.
    """
    coin = random.Random(recommendation_id)
    own = {"control": names[0], "treatment": names[1]}
    lists, teams = [], []
    for (domain, control), (_, treatment) in zip(*(one.lists for one in ranked), strict=True):
        ids = [item_ids(one.catalog, found) for one, found in zip(ranked, (control, treatment), strict=True)]
        items, picked = team_draft(ids[0], ids[1], k, coin)
        score_of = {
            "control": dict(zip(ids[0], control.scores, strict=True)),
            "treatment": dict(zip(ids[1], treatment.scores, strict=True)),
        }
        index = [catalog.item_index(domain, item_id) for item_id in items]
        unknown = [item_id for item_id, known in zip(items, index, strict=True) if not known]
        place = {item_id: -1 - number for number, item_id in enumerate(unknown)}
        lists.append(
            (
                domain,
                DomainList(
                    [known or place[item_id] for item_id, known in zip(items, index, strict=True)],
                    np.array(
                        [score_of[team][item_id] for item_id, team in zip(items, picked, strict=True)], dtype=np.float32
                    ),
                    unknown,
                ),
            )
        )
        teams.append([own[team] for team in picked])
    return lists, tuple(teams)


def item_ids(catalog: Catalog, found: DomainList) -> list[str]:
    """The ids of a list, those of items newer than the catalogue too."""
    known, new = catalog.item_ids, found.new_ids
    return [known[index] if index > 0 else new[-1 - index] for index in found.item_index]


def _blend(ours: DomainList, theirs: DomainList, share: float, k: int) -> DomainList:
    score_of = dict(zip(theirs.item_index, theirs.scores, strict=True)) | dict(
        zip(ours.item_index, ours.scores, strict=True)
    )
    from_ours, from_theirs, taken = iter(ours.item_index), iter(theirs.item_index), dict[int, None]()
    for rank in range(k):
        is_popular = int((rank + 1) * share) > int(rank * share)
        for source in (from_theirs, from_ours) if is_popular else (from_ours, from_theirs):
            item = next((index for index in source if index not in taken), None)
            if item is not None:
                taken[item] = None
                break
    index = list(taken)
    return DomainList(index, np.array([score_of[one] for one in index], dtype=np.float32), theirs.new_ids)
