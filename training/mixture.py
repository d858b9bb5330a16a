"""The mixture per domain: weights of the members, chosen on validation for NDCG@10.

Why not by likelihood: the likeliest weights spread over everything that might happen, and lose the first ten places to it (decision
8). Why a search: NDCG has no gradient, and seven weights need none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from formats.errors import WorkFailed
from formats.files import replace_file
from model.mixed_ranker import Weights
from training.cases import Cases
from training.metrics import ndcg_at_k
from training.ranking import Catalogue, Scorer, scored

MIXTURE: Final = "mixture.json"
# A member's weight beside the sum of all others.
GRID: Final = (0.0, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.5, 4.0, 8.0)
ROUNDS: Final = 3
# Of each member so many first places are looked at: what is in nobody's first places is not among the mixture's first ten.
PLACES: Final = 150
# The other domains' mean counts as so many cases of a domain.
PULL: Final = 300

Floats = NDArray[np.float32]
# Batches of cases: the members' shares of some candidates, [members, cases, candidates], and of the targets, [members, cases].
Shares = Sequence[tuple[Floats, Floats]]


@dataclass(frozen=True)
class MixtureScorer:
    """A weighted sum of the members' shares, per domain."""

    members: Mapping[str, Scorer]
    weights: Sequence[Weights]

    def __call__(self, cases: Cases, domain: int) -> Floats:
        """Shares, [cases, items of the domain]; a `training.ranking.Scorer`."""
        parts = [weight * self.members[name](cases, domain) for name, weight in self.weights[domain].items() if weight]
        mixed: Floats = np.sum(parts, axis=0, dtype=np.float32)
        return mixed


def fit_mixture(
    members: Mapping[str, Scorer], cases: Cases, catalogue: Catalogue, exclude_seen: bool, default: str
) -> list[Weights]:
    """Choose the weights of every domain.

    Args:
        members: scorers of shares.
        cases: validation events, and not too many: their candidates' shares are all kept.
        catalogue: of the training data.
        exclude_seen: as the evaluation treats items that the user has had.
        default: the member that serves alone where no domain has cases.
    Returns:
        per domain, member -> weight; the weights of a domain add up to 1.
    """
    random = np.random.default_rng(0)
    known = [
        np.flatnonzero((cases.target_domain == number) & (cases.target > 0))
        for number in range(1, len(catalogue.items_per_domain) + 1)
    ]

    def shares_of(which: NDArray[np.int64]) -> Shares:
        return list(_first_places(cases.take(which), list(members.values()), catalogue, exclude_seen))

    # A few cases of every domain are held at once, all cases of one domain only: those of many domains would not fit.
    for_others = [shares_of(np.sort(random.permutation(which)[:PULL])) for which in known]
    weights = []
    for domain, which in enumerate(known):
        shares = shares_of(which)
        others = [other for number, other in enumerate(for_others) if other and number != domain]
        if shares or others:
            found = map(float, best_weights(shares, others))
            weights.append(dict(zip(members, found, strict=True)))
        else:
            weights.append({name: float(name == default) for name in members})
    return weights


def _first_places(
    cases: Cases, members: Sequence[Scorer], catalogue: Catalogue, exclude_seen: bool
) -> Iterator[tuple[Floats, Floats]]:
    """The batches of `Shares`: candidates are what is in some member's first places."""
    for batches in zip(*(scored(cases, member, catalogue, exclude_seen) for member in members), strict=True):
        target = batches[0].target[:, None]
        shares = np.stack([np.maximum(batch.scores, 0) for batch in batches])
        places = min(PLACES, shares.shape[2])
        first = np.concatenate(np.argpartition(-shares, places - 1, axis=2)[:, :, :places], axis=1)
        first.sort(axis=1)
        candidates = np.take_along_axis(shares, first[None], axis=2)
        again = np.diff(first, axis=1, prepend=-1) == 0
        candidates[:, again | (first == target)] = 0  # a share of 0 beats nobody
        yield candidates, np.take_along_axis(shares, target[None], axis=2)[:, :, 0]


def best_weights(own: Shares, others: Sequence[Shares] = ()) -> NDArray[np.float32]:
    """Coordinate ascent on NDCG@10, from the best single member.

    A domain with few cases would choose weights that fit nothing but these cases. So the mean NDCG@10 of the other domains
    counts as if it were PULL further cases: with many cases of its own a domain decides alone, with none the others do.

    Args:
        own: shares of the domain's cases.
        others: of some cases of each other domain.
    Returns:
        [members], adding up to 1.
    """
    members = len((own or others[0])[0][1])
    cases = sum(targets.shape[1] for _, targets in own)
    pull = PULL if others else 0

    def value(weights: Floats) -> float:
        theirs = np.mean([_ndcg(shares, weights) for shares in others]) if others else 0.0
        return float((cases * _ndcg(own, weights) + pull * theirs) / (cases + pull))

    alone = np.eye(members, dtype=np.float32)
    values = [value(weights) for weights in alone]
    best = max(values)
    chosen: Floats = alone[int(np.argmax(values))]
    for _ in range(ROUNDS):
        before = best
        for member in range(members):
            rest = chosen * (alone[member] == 0)
            if not rest.any():
                continue
            for weight in GRID:
                tried = rest / rest.sum() + weight * alone[member]
                found = value(tried)
                if found > best:
                    best, chosen = found, tried / tried.sum()
        if best == before:
            break
    return chosen


def _ndcg(shares: Shares, weights: Floats) -> float:
    return 0.0 if not shares else float(np.concatenate([_ndcg_of_batch(*batch, weights) for batch in shares]).mean())


def _ndcg_of_batch(candidates: Floats, targets: Floats, weights: Floats) -> NDArray[np.float64]:
    own, others = _mixed(targets, weights)[:, None], _mixed(candidates, weights)
    ranks = 1 + (others > own).sum(1) + (others == own).sum(1) / 2
    # A share of 0 is that of nearly the whole domain.
    found: NDArray[np.float64] = np.where(own[:, 0] > 0, ndcg_at_k(ranks, 10), 0.0)
    return found


def _mixed(shares: Floats, weights: Floats) -> Floats:
    """The weighted sum over members; not as a product of matrices, which may round equal shares to different sums."""
    used = np.flatnonzero(weights)
    mixed: Floats = weights[used[0]] * shares[used[0]]
    for member in used[1:]:
        mixed += weights[member] * shares[member]
    return mixed


def write_mixture(run: Path, domains: Sequence[str], weights: Sequence[Weights]) -> None:
    """Keep the weights beside the run.

    Raises:
        WorkFailed: the file cannot be written.
    """
    content = json.dumps(dict(zip(domains, weights, strict=True)), indent=2) + "\n"
    replace_file(run / MIXTURE, content.encode())


def read_mixture(run: Path, domains: Sequence[str], members: Sequence[str]) -> list[Weights]:
    """The weights of a run.

    Raises:
        WorkFailed: there are none, or not those of these domains and members.
    """
    file = run / MIXTURE
    try:
        content: Any = json.loads(file.read_text())
        weights = [{name: float(content[domain][name]) for name in members} for domain in domains]
    except FileNotFoundError as error:
        raise WorkFailed(
            f"{file}: missing: the training did not come to its end; `syncrec train --resume` goes on"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise WorkFailed(f"{file}: damaged: {type(error).__name__}: {error}") from error
    for domain, of_domain in zip(domains, weights, strict=True):
        if min(of_domain.values()) < 0 or not 0.99 < sum(of_domain.values()) < 1.01:
            raise WorkFailed(f"{file}: {domain}: weights must not be negative and must add up to 1: {of_domain}")
    return weights
