"""The bundle's recorded requests, asked again: a bundle that answers differently than at export is refused."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from formats.bundle import WARMUP, Bundle, WarmupRequest
from formats.errors import WorkFailed
from service.ranking.catalog import NO_ITEMS, Catalog
from service.ranking.query import DomainList, Query

# Relative to a score, or to 1 where that is more; float32 sums in another order differ by about 1e-5.
TOLERANCE = 1e-3
# A mixture's scores are shares of a domain, all far below 1: relative to the first place. A share differs by as large a part as
# the logits behind it differ, so this allows what the former allows logits of 10.
SHARES_TOLERANCE = 1e-2


def check_warmup(
    bundle: Bundle, catalog: Catalog, run: Callable[[Sequence[Query]], Sequence[Sequence[DomainList]]]
) -> None:
    """Ask every recorded request, alone and all together, and compare.

    Raises:
        WorkFailed: the graph fails; a score or an item differs; items of nearly equal scores may change places.
    """
    requests = bundle.warmup()
    if not requests:
        raise WorkFailed(f"{bundle.path / WARMUP}: holds no request")
    queries = [recorded_query(catalog, request) for request in requests]
    shares = bundle.manifest.mixture is not None
    try:
        alone, together = [run([query])[0] for query in queries], run(queries)
    except Exception as error:  # what ONNX Runtime raises has no common base below Exception
        raise WorkFailed(
            f"{bundle.graph}: fails at a recorded request: {' '.join(str(error).split())[:300]}"
        ) from error
    for answers in (alone, together):
        for line, (request, lists) in enumerate(zip(requests, answers, strict=True), start=1):
            for domain, answer in zip(catalog.domains, lists, strict=True):
                ours = with_ids(catalog, answer)
                if differs := difference(ours, dict(request.answer.get(domain, [])), shares):
                    raise WorkFailed(
                        f"{bundle.path / WARMUP}:{line}: the graph answers otherwise than at export: {domain}: {differs}"
                    )


def recorded_query(catalog: Catalog, request: WarmupRequest) -> Query:
    """What was asked when a request was recorded."""
    history = np.array(
        [
            catalog.item_index(domain, item_id) if domain in catalog.domain_number else 0
            for domain, item_id in request.history
        ],
        dtype=np.int32,
    )
    return Query(history, history, (False,) * len(catalog.domains), NO_ITEMS, request.k)


def with_ids(catalog: Catalog, answer: DomainList) -> dict[str, float]:
    """Item ids and scores of a list, best first."""
    return {
        catalog.item_ids[index]: float(score) for index, score in zip(answer.item_index, answer.scores, strict=True)
    }


def difference(ours: Mapping[str, float], recorded: Mapping[str, float], shares: bool = False) -> str | None:
    """What differs between two lists, best first; None if nothing but the order of near-ties."""
    if len(ours) != len(recorded):
        return f"{len(ours)} items instead of {len(recorded)}"
    first = next(iter(recorded.values()), 0.0)

    def near(score: float, wanted: float) -> bool:
        allowed = SHARES_TOLERANCE * first if shares else TOLERANCE * max(1.0, abs(wanted))
        return abs(score - wanted) <= allowed

    for rank, (score, wanted) in enumerate(zip(ours.values(), recorded.values(), strict=True), start=1):
        if not near(score, wanted):
            return f"score {score:.6g} instead of {wanted:.6g} at rank {rank}"
    # The lists agree rank by rank in score. An item of one list alone must be a near-tie with the end of the other.
    for mine, other in ((ours, recorded), (recorded, ours)):
        for item_id, score in mine.items():
            last = list(other.values())[-1]
            if not near(score, other.get(item_id, last)):
                return f"item '{item_id}' at score {score:.6g} is not where it was"
    return None
