"""Interleaving (`service.experiments.team_draft`): a test of whose items users click.

It says which ranker is better with a fraction of the users of an A/B test, and not by how much click-through rises.
Source: Radlinski, Kurup and Joachims 2008.
"""

from typing import Final

from service.experiments.analysis.ratio import Measured, Ratio, measure
from service.experiments.analysis.sums import Floats, Sums

PREFERENCE: Final = Ratio("preference", "won", "clicks")


def preference(control_clicks: Floats, treatment_clicks: Floats) -> Measured:
    """By what share of the clicks treatment's items win over control's: 0 neither, 1 only treatment's are clicked.

    Args:
        control_clicks, treatment_clicks: clicks of each user on the items of each team, [users].
    """
    both = control_clicks + treatment_clicks
    return measure(Sums.of({"won": treatment_clicks - control_clicks, "clicks": both}), PREFERENCE)
