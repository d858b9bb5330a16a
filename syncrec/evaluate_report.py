"""What `syncrec evaluate` prints: quality, negative transfer, what the lists are like, and where the model is good."""

from typing import Any

from syncrec.console import table
from training.evaluate import CUT_OFFS
from training.metrics import METRICS

NAMES = {"cross": "CDSR", "single": "SDSR"}
MEASURES = {
    "coverage": "coverage",
    "gini": "Gini",
    "novelty": "novelty",
    "popularity_lift": "lift",
    "diversity": "diversity",
    "calibration_error": "ECE",
}
SLICES = {"own_history": "events in the domain before", "target_count": "target's training events"}


def report(result: dict[str, Any]) -> str:
    """The tables that a person reads."""
    drawn = "" if result["max_cases"] is None else f", at most {result['max_cases']:,} events per domain"
    parts = [
        f"{result['part']} events, ranking {result['ranking']}, seen items {result['seen_items']}{drawn}",
        _quality(result),
    ]
    if all("lambda" in counts for counts in result["domains"].values()):  # a baseline has no two tasks to compare
        parts += [
            "negative transfer: NDCG@10 of both tasks, and the gap in training (λ below 0: CDSR fits worse)",
            _transfer(result["domains"]),
        ]
    if "beyond_accuracy" in result:
        parts += ["what the first 10 places are like, mean of domains", _beyond_accuracy(result)]
    parts += ["NDCG@10 of all events, by what was known", _slices(result)]
    return "\n\n".join(parts)


def _quality(result: dict[str, Any]) -> str:
    groups = [*result["domains"].items(), ("all events", result["overall"]), ("mean of domains", result["macro"])]
    metrics = [f"{name}@{k}" for name in METRICS for k in CUT_OFFS]
    rows = [
        [
            group,
            NAMES.get(scorer, scorer),
            f"{counts['n']:,}" if "n" in counts else "",
            *(f"{counts[scorer][key]:.4f}" for key in metrics),
            *_published(result, group, scorer),
        ]
        for group, counts in groups
        for scorer in result["macro"]
        if counts[scorer] is not None
    ]
    header = ["domain", "model", "n", *(key.upper() for key in metrics)]
    if "as_published" in result:
        header += [f"{name}, 1+{result['as_published']['candidates']}" for name in ("HR@10", "NDCG@10")]
    return table(header, rows, left=(0, 1))


def _published(result: dict[str, Any], group: str, scorer: str) -> list[str]:
    if "as_published" not in result:
        return []
    published = result["as_published"]
    values = {**published["domains"], "all events": published["overall"], "mean of domains": published["macro"]}[group]
    return [f"{values[scorer][key]:.4f}" for key in ("hr@10", "ndcg@10")]


def _transfer(domains: dict[str, Any]) -> str:
    rows = [
        [
            name,
            f"{counts['cold'] / counts['n']:.1%}",
            f"{counts['single']['ndcg@10']:.4f}",
            f"{counts['cross']['ndcg@10']:.4f}",
            f"{counts['cross']['ndcg@10'] - counts['single']['ndcg@10']:+.4f}",
            f"{counts['lambda']:+.4f}",
            f"{counts['weight']:.3f}",
        ]
        for name, counts in domains.items()
        if counts["n"]
    ]
    return table(["domain", "cold", "SDSR", "CDSR", "difference", "λ", "weight"], rows)


def _beyond_accuracy(result: dict[str, Any]) -> str:
    rows = [
        [NAMES.get(scorer, scorer), *(_figure(values[measure]) for measure in MEASURES)]
        for scorer, values in result["beyond_accuracy"]["macro"].items()
        if values is not None
    ]
    return table(["model", *MEASURES.values()], rows)


def _slices(result: dict[str, Any]) -> str:
    rows = [
        [SLICES[kind], name, f"{values['n']:,}", *(_ndcg(values[scorer]) for scorer in result["macro"])]
        for kind, bins in result["slices"]["overall"].items()
        for name, values in bins.items()
    ]
    header = ["by", "", "n", *(NAMES.get(scorer, scorer) for scorer in result["macro"])]
    return table(header, rows, left=(0, 1))


def _ndcg(values: dict[str, float] | None) -> str:
    return _figure(None if values is None else values["ndcg@10"])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
