"""A bundle of a network that nobody trained: the real graph at real sizes in seconds, since weights cost no time."""

from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from formats.bundle import (
    CARD,
    GRAPH,
    ITEMS,
    MAX_K,
    WARMUP,
    Bundle,
    Manifest,
    WarmupRequest,
    graph_inputs,
    graph_outputs,
    recent_column,
    write_bundle,
)
from model.mixed_ranker import CROSS, NEIGHBOURS, OWN_NEIGHBOURS, SINGLE, MixedRanker, Mixture, Weights
from model.neighbours import Neighbours
from model.ranker import Ranker
from model.syncrec import SyNCRec, build_syncrec
from training.config import TrainingConfig
from training.export import WARMUP_K, ask
from training.graph import OPSET, write_graph
from training.members import HALF_LIVES, KNN_HISTORY, KNN_NEIGHBOURS, RECENT
from training.methods import to_json
from training.served_ranker import ServedRanker

DOMAINS: Final = ("Books", "Games", "Movies", "Music")
# Every member has a weight, as in nearly all domains of the trained runs: one without is left out of the graph.
WEIGHTS: Final[Weights] = {
    CROSS: 0.2, SINGLE: 0.05, RECENT[0]: 0.3, RECENT[1]: 0.05, RECENT[2]: 0.1, NEIGHBOURS: 0.2, OWN_NEIGHBOURS: 0.1,
}  # fmt: skip
WARMUP_REQUESTS: Final = 4

Floats = NDArray[np.float32]


def write_synthetic_bundle(models: Path, config: TrainingConfig, items: int, seed: int = 0) -> Bundle:
    """Write a bundle with random weights.

    Args:
        models: the models folder.
        config: sizes of the network, and whether a mixture is served.
        items: of all domains together; every domain has as many.
        seed: of everything that is drawn.
    """
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    sizes = (items // len(DOMAINS),) * len(DOMAINS)
    network = build_syncrec(config.network(sizes)).eval()
    counts = _counts(sizes, random)
    served = _served(network, config, sizes, counts, random)
    recent = served.recent.shape
    frame = _items(sizes, counts, served)
    created = datetime.now(UTC)
    version = f"synthetic-{'mixture' if config.mixture else 'cross'}-{config.dim}-{sum(sizes)}"

    def fill(folder: Path) -> None:
        write_graph(served.ranker, folder / GRAPH, config.max_history + 1, recent)
        frame.write_parquet(folder / ITEMS)
        warmup = _warmup(served, frame, config.max_history, random)
        (folder / WARMUP).write_text("".join(request.model_dump_json() + "\n" for request in warmup))
        (folder / CARD).write_text(f"# {version}\n\nRandom weights, to measure how fast it is served.\n")

    def manifest(files: dict[str, str]) -> Manifest:
        return Manifest(
            model_version=version,
            created_at=created,
            domains=DOMAINS,
            items_per_domain=dict(zip(DOMAINS, sizes, strict=True)),
            max_history=config.max_history,
            dim=config.dim,
            inputs=graph_inputs(len(DOMAINS), config.max_history + 1, recent),
            outputs=graph_outputs(len(DOMAINS)),
            mixture=served.mixture,
            recent_half_lives_days=served.half_lives,
            training_config=to_json(config),
            dataset_fingerprint="none",
            evaluation={},
            opset=OPSET,
            files=files,
        )

    return write_bundle(models, manifest, version, fill)


def _served(
    network: SyNCRec, config: TrainingConfig, sizes: tuple[int, ...], counts: Floats, random: np.random.Generator
) -> ServedRanker:
    if not config.mixture:
        return ServedRanker(Ranker(network, sizes, MAX_K).eval(), (), np.zeros((0, 0), dtype=np.float32), None)
    weights = [dict(WEIGHTS) for _ in sizes]
    mixture = Mixture(network, _neighbours(sizes, random), sizes, list(RECENT), weights)
    recent = np.pad(np.stack([counts / days for days in HALF_LIVES]).astype(np.float32), ((0, 0), (1, 1)))
    return ServedRanker(
        MixedRanker(mixture, MAX_K).eval(), HALF_LIVES, recent, dict(zip(DOMAINS, mixture.weights, strict=True))
    )


def _neighbours(sizes: tuple[int, ...], random: np.random.Generator) -> Neighbours:
    """As many neighbours as `default` keeps, in every domain: no trained table is larger."""
    shape = (sum(sizes) + 1, len(sizes), KNN_NEIGHBOURS)
    first = np.array(list(accumulate(sizes[:-1], initial=1)))
    item = first[:, None] + (random.random(shape) * np.array(sizes)[:, None]).astype(np.int32)
    weight = random.random(shape, dtype=np.float32)
    item[0], weight[0] = 0, 0
    of_all, of_own = ([WEIGHTS[name]] * len(sizes) for name in (NEIGHBOURS, OWN_NEIGHBOURS))
    return Neighbours(
        torch.from_numpy(item.astype(np.int32)),
        torch.from_numpy(weight),
        torch.from_numpy(np.pad(np.repeat(np.arange(1, len(sizes) + 1), sizes), 1)),
        KNN_HISTORY.factor,
        list(range(1, len(sizes) + 1)),
        of_all,
        of_own,
    )


def _counts(sizes: tuple[int, ...], random: np.random.Generator) -> Floats:
    """How often each item was chosen, falling within a domain, [items]."""
    counts = [np.sort(random.pareto(1.2, size) + random.random(size))[::-1] for size in sizes]
    return np.concatenate(counts).astype(np.float32)


def _items(sizes: tuple[int, ...], counts: Floats, served: ServedRanker) -> pl.DataFrame:
    columns: dict[str, Any] = {
        "item_index": pl.Series(range(1, sum(sizes) + 1), dtype=pl.Int32),
        "item_id": [f"{name[:2].upper()}{number:08}" for name, size in zip(DOMAINS, sizes, strict=True) for number in range(size)],
        "domain": [name for name, size in zip(DOMAINS, sizes, strict=True) for _ in range(size)],
        "popularity": counts,
        "title": [f"{name}: title number {number:,}" for name, size in zip(DOMAINS, sizes, strict=True) for number in range(size)],
    }  # fmt: skip
    recent = zip(map(recent_column, served.half_lives), served.recent[:, 1:-1], strict=True)
    return pl.DataFrame({**columns, **dict(recent)})


def _warmup(
    served: ServedRanker, frame: pl.DataFrame, max_history: int, random: np.random.Generator
) -> list[WarmupRequest]:
    histories = [random.integers(1, len(frame) + 1, max_history).astype(np.int32) for _ in range(WARMUP_REQUESTS)]
    scores, index = ask(served, histories, histories, max_history, len(frame), WARMUP_K)
    ids, domains = frame["item_id"].to_list(), frame["domain"].to_list()
    return [
        WarmupRequest(
            user_id=f"warmup-{number}",
            history=[(domains[item - 1], ids[item - 1]) for item in history],
            k=WARMUP_K,
            answer={
                domain: [
                    (ids[item - 1], float(score))
                    for item, score in zip(index[number, place], scores[number, place], strict=True)
                ]
                for place, domain in enumerate(DOMAINS)
            },
        )
        for number, history in enumerate(histories)
    ]
