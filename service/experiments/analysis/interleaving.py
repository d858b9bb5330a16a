"""Interleaving: both rankers in one list by team draft, and a test of whose items users click.

It says which ranker is better with a fraction of the users of an A/B test, and not by how much click-through rises.
Source: Radlinski, Kurup and Joachims 2008.
"""

import random
from collections.abc import Sequence
from typing import Final, Literal

from service.experiments.analysis.ratio import Measured, Ratio, measure
from service.experiments.analysis.sums import Floats, Sums

Team = Literal["control", "treatment"]

PREFERENCE: Final = Ratio("preference", "won", "clicks")


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


def preference(control_clicks: Floats, treatment_clicks: Floats) -> Measured:
    """By what share of the clicks treatment's items win over control's: 0 neither, 1 only treatment's are clicked.

    Args:
        control_clicks, treatment_clicks: clicks of each user on the items of each team, [users].
    """
    both = control_clicks + treatment_clicks
    return measure(Sums.of({"won": treatment_clicks - control_clicks, "clicks": both}), PREFERENCE)
