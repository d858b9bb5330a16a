"""What one scorer answers to evaluation cases: everything that is measured comes from here, in one pass over the scores."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.calibration import ScoreKind, confidence, first_is_right
from training.cases import Cases
from training.metrics import Ranks, first_places, mid_ranks
from training.ranking import Catalogue, Scored, Scorer, drawn_candidates, scored

PLACES: Final = 10


@dataclass(frozen=True)
class Answers:
    """Of every case; those with a cold target are not scored.

    ranks: of the target among all candidates; infinity where it is cold, [cases].
    sampled_ranks: among the drawn candidates, [cases]; None if none were drawn.
    stood_in: where popularity answered, because the user has no known event, [cases].
    first: item indices of the first places, best first; 0 where there are fewer candidates or no scores, [cases, PLACES].
    confidence: probability of the first place, NaN where the scorer gave none, [cases].
    right: probability that the first place is the target, NaN as before, [cases].
    """

    ranks: Ranks
    sampled_ranks: Ranks | None
    stood_in: NDArray[np.bool_]
    first: NDArray[np.int32]
    confidence: NDArray[np.float64]
    right: NDArray[np.float64]


def answer(
    cases: Cases,
    scorer: Scorer,
    catalogue: Catalogue,
    exclude_seen: bool,
    whole_catalogue: bool = False,
    sampled: int | None = None,
    kind: ScoreKind | None = None,
) -> Answers:
    """Score all cases once.

    Args:
        cases, scorer, catalogue, exclude_seen, whole_catalogue: as in `training.ranking.scored`.
        sampled: rank also among so many drawn candidates; every scorer meets the same ones.
        kind: what the scores are; None: nothing that speaks of probability.
    """
    n = len(cases)
    found = Answers(
        ranks=np.full(n, np.inf),
        sampled_ranks=None if sampled is None else np.full(n, np.inf),
        stood_in=np.zeros(n, dtype=np.bool_),
        first=np.zeros((n, PLACES), dtype=np.int32),
        confidence=np.full(n, np.nan),
        right=np.full(n, np.nan),
    )
    random = np.random.default_rng(0)
    for batch in scored(cases, scorer, catalogue, exclude_seen, whole_catalogue):
        _record(found, batch, kind)
        if sampled is not None and found.sampled_ranks is not None:
            candidates = drawn_candidates(batch.scores, batch.target, sampled, random)
            found.sampled_ranks[batch.which] = mid_ranks(candidates, batch.target)
    return found


def _record(found: Answers, batch: Scored, kind: ScoreKind | None) -> None:
    ranks = mid_ranks(batch.scores, batch.target)
    found.ranks[batch.which] = ranks
    found.stood_in[batch.which] = batch.stood_in
    columns = first_places(batch.scores, PLACES)
    found.first[batch.which] = np.where(columns < 0, 0, columns + batch.first_item)
    if kind is not None:
        own = ~batch.stood_in
        found.confidence[batch.which[own]] = confidence(batch.scores, kind)[own]
        found.right[batch.which[own]] = first_is_right(batch.scores, batch.target, ranks)[own]
