"""Two rankers' lists in one by team draft, so that users choose between them.

Source: Radlinski, Kurup and Joachims 2008.
"""

import random
from collections.abc import Sequence
from typing import Literal

Team = Literal["control", "treatment"]


def team_draft(
    control: Sequence[str], treatment: Sequence[str], k: int, rng: random.Random
) -> tuple[list[str], list[Team]]:
    """The first k of a list in which both pick in turns, a coin deciding who picks first; and whose pick each item is.

    Args:
        control, treatment: item ids, best first, no item twice in one list. If one ends, the other goes on alone.
        rng: seeded with the recommendation's id, so that the list can be made again.
    """
    lists: dict[Team, Sequence[str]] = {"control": control, "treatment": treatment}
    place: dict[Team, int] = {"control": 0, "treatment": 0}
    items: list[str] = []
    teams: list[Team] = []
    shown: set[str] = set()
    while len(items) < k:
        order: list[Team] = ["control", "treatment"] if rng.random() < 0.5 else ["treatment", "control"]
        before = len(items)
        for team in order:
            ranked, here = lists[team], place[team]
            while here < len(ranked) and ranked[here] in shown:
                here += 1
            place[team] = here
            if here < len(ranked) and len(items) < k:
                items.append(ranked[here])
                teams.append(team)
                shown.add(ranked[here])
        if len(items) == before:
            break
    return items, teams
