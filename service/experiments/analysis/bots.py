"""Users who do not behave like people, by rules that do not know the arm.

They stay in the main figures (whoever is dropped for what was done after assignment biases them); the report shows the
lift without them beside it.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.experiments.analysis.ratio import CTR, compare
from service.experiments.analysis.users import Users
from service.experiments.analysis.warnings import Bots

# Robust standard deviations of log requests above the median: of lognormal users 3 in 100,000 are beyond the second,
# and of those beyond the first hardly any clicks nothing at all or nearly everything.
FAST, VERY_FAST = 3.0, 4.0
NEARLY_ALL: Final = 0.8
# A warning needs this share of users and this many; below it is chance.
SHARE, FEWEST = 1e-3, 3


def suspected(users: Users) -> NDArray[np.bool_]:
    """Which users, [users]: far more requests than anybody, or many and then no click at all or a click on everything."""
    if len(users.variant) == 0:
        return np.zeros(0, dtype=np.bool_)
    requests, impressions, clicks = (users.columns[name] for name in ("requests", "impressions", "clicks"))
    activity = np.log(np.maximum(requests, 1))
    middle = np.median(activity)
    spread = max(1.4826 * float(np.median(np.abs(activity - middle))), 0.5)
    beyond = (activity - middle) / spread
    machine_like = (clicks == 0) | (clicks > NEARLY_ALL * impressions)
    found: NDArray[np.bool_] = (beyond > VERY_FAST) | ((beyond > FAST) & machine_like)
    return found


def bots(users: Users) -> Bots | None:
    """The warning, if there are enough of them to matter."""
    found = suspected(users)
    if found.sum() < max(FEWEST, SHARE * len(found)):
        return None
    requests = users.columns["requests"]
    return Bots(
        severity="caution",
        users=int(found.sum()),
        users_share=float(found.mean()),
        requests_share=float(requests[found].sum() / requests.sum()),
        lifts=_lifts(users, np.ones(len(found), dtype=np.bool_)),
        lifts_without=_lifts(users, ~found),
    )


def _lifts(users: Users, which: NDArray[np.bool_]) -> dict[str, float | None]:
    """Of click-through, by treatment."""
    sums = users.sums(CTR.columns, which)
    control = users.variants[0]
    return {name: compare(sums[control], sums[name], CTR).relative for name in users.variants[1:]}
