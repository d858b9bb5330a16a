"""Ranks and answers the slow and obvious way: loops over candidates."""

import math


def mid_rank(scores, target):
    """1 + candidates above the target + half of those beside it; -inf is no candidate."""
    own = scores[target]
    others = [score for place, score in enumerate(scores) if place != target and score != -math.inf]
    return 1 + sum(score > own for score in others) + sum(score == own for score in others) / 2


def best(scores, candidates, k):
    """The first k candidates by falling score, the lower item first where equal; (score, item) each."""
    found = sorted((-scores[item], item) for item in candidates)[:k]
    return [(-score, item) for score, item in found]
