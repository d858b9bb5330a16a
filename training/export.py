"""Run -> bundle: the ONNX graph, compared with PyTorch on real histories before the bundle appears under its name."""

import hashlib
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from formats.arrays import write_array
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
from formats.errors import WorkFailed
from formats.history import encode_histories
from formats.neighbours import NEIGHBOURS, read_neighbours
from formats.runtime import import_onnxruntime
from formats.vectors import VECTORS, read_vectors
from training.card import model_card
from training.cases import contexts
from training.dataset import Dataset
from training.graph import OPSET, write_graph
from training.methods import syncrec_config, syncrec_of, to_json
from training.run import TrainedRun
from training.served_ranker import ServedRanker, served_ranker
from training.similar_items import strongest_neighbours, unit_vectors

# float32 sums in another order; ten times what was ever seen between PyTorch and ONNX Runtime on trained networks.
TOLERANCE = 1e-4
SMALL_SHARE = 1e-6
COMPARED_HISTORIES = 256
WARMUP_REQUESTS = 32
WARMUP_K = 10

Histories = list[NDArray[np.int32]]
Answer = tuple[NDArray[np.float32], NDArray[np.int32]]


def export(trained: TrainedRun, evaluation: dict[str, Any], models: Path) -> Bundle:
    """Write the bundle of a run's best checkpoint.

    Args:
        trained: the run.
        evaluation: what `evaluate` found, for the manifest and the model card.
        models: the models folder.
    Raises:
        WorkFailed: the files and the checkpoint differ, or the disk is full; nothing is left behind.
    """
    dataset, config = trained.dataset, syncrec_config(trained.run.config)
    network = syncrec_of(trained.objective).network.cpu().eval()
    served = served_ranker(trained)
    recent = served.recent.shape
    slots, domains = config.max_history + 1, len(dataset.domains)
    created = datetime.now(UTC)
    weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    version = f"{created:%Y%m%dT%H%M%SZ}-{hashlib.sha256(weights).hexdigest()[:8]}"
    items = _items(dataset, served)
    table = BytesIO()  # written by Python, which raises OSError on a full disk; Polars raises something of its own
    items.write_parquet(table)
    histories = _real_histories(dataset, COMPARED_HISTORIES, config.max_history)
    vectors, neighbours = unit_vectors(network.item_vectors().detach().numpy()), strongest_neighbours(dataset)

    def fill(folder: Path) -> None:
        write_graph(served.ranker, folder / GRAPH, slots, recent)
        _compare(served, folder / GRAPH, histories, config.max_history, network.items)
        (folder / ITEMS).write_bytes(table.getbuffer())
        write_array(folder / VECTORS, vectors)
        write_array(folder / NEIGHBOURS, neighbours)
        _compare_similar(folder, vectors, neighbours, dataset)
        warmup = _warmup(served, histories[:WARMUP_REQUESTS], config.max_history, dataset, items)
        (folder / WARMUP).write_text("".join(request.model_dump_json() + "\n" for request in warmup))
        (folder / CARD).write_text(model_card(version, created, dataset, config, evaluation))

    def manifest(files: dict[str, str]) -> Manifest:
        return Manifest(
            model_version=version,
            created_at=created,
            domains=dataset.domains,
            items_per_domain=dict(zip(dataset.domains, dataset.items_per_domain, strict=True)),
            max_history=config.max_history,
            dim=config.dim,
            inputs=graph_inputs(domains, slots, recent),
            outputs=graph_outputs(domains),
            mixture=served.mixture,
            recent_half_lives_days=served.half_lives,
            training_config=to_json(config),
            dataset_fingerprint=dataset.fingerprint,
            evaluation=evaluation,
            opset=OPSET,
            files=files,
        )

    return write_bundle(models, manifest, version, fill)


def ask(served: ServedRanker, histories: Histories, seen: Histories, max_history: int, items: int, k: int) -> Answer:
    """The checkpoint's answer to some histories, seen items excluded: scores and item indices, [batch, domain, k]."""
    feed = _feed(served, histories, seen, max_history, items, k)
    with torch.inference_mode():
        scores, index = served.ranker(*map(torch.from_numpy, feed.values()))
    return scores.numpy(), index.numpy()


def answers_agree(one: Answer, other: Answer, tolerance: float, shares: bool = False) -> bool:
    """Whether two answers are the same but for rounding: scores within the tolerance, items equal except near ties.

    Args:
        one, other: scores, falling, and item indices, [batch, domain, k].
        tolerance: relative to a score, or to 1 where that is more.
        shares: scores are shares of a domain, all far below 1: relative to a score, or to SMALL_SHARE of the first place.
    """
    (scores, index), (other_scores, other_index) = one, other
    finite = np.isfinite(scores)
    if not np.array_equal(finite, np.isfinite(other_scores)):
        return False
    values, other_values = np.where(finite, scores, 0), np.where(finite, other_scores, 0)
    unit = np.maximum(np.abs(values), SMALL_SHARE * values[..., :1] if shares else 1)
    if (np.abs(values - other_values) > tolerance * unit).any():
        return False
    # Where the items differ, the two must be near ties: the score at the same place already is, so only the place moved.
    moved = (index != other_index) & finite
    close = np.abs(np.diff(values, axis=-1)) <= 2 * tolerance * unit[..., 1:]
    near = np.zeros_like(moved)
    near[..., 1:] |= close
    near[..., :-1] |= close
    near[..., -1] = True  # the first place below the cut is unknown, so a tie there is allowed
    return bool((~moved | near).all())


def _compare(served: ServedRanker, graph: Path, histories: Histories, max_history: int, items: int) -> None:
    onnxruntime = import_onnxruntime()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    # Together and alone: a batch of mixed lengths must answer as each of its rows would.
    for batch in [histories, *([history] for history in histories[:4])]:
        feed = _feed(served, batch, batch, max_history, items, MAX_K)
        answer = tuple(session.run(["scores", "item_index"], feed))
        wanted = ask(served, batch, batch, max_history, items, MAX_K)
        if not answers_agree(wanted, answer, TOLERANCE, shares=served.mixture is not None):
            raise WorkFailed(
                f"the ONNX graph and the checkpoint differ by more than {TOLERANCE}: no bundle was written"
            )


def _compare_similar(
    folder: Path, vectors: NDArray[np.float32], neighbours: NDArray[np.int32], dataset: Dataset
) -> None:
    written = {
        VECTORS: (read_vectors(folder / VECTORS, *vectors.shape), vectors),
        NEIGHBOURS: (read_neighbours(folder / NEIGHBOURS, dataset.items_per_domain), neighbours),
    }
    for name, (found, wanted) in written.items():
        if not np.array_equal(found, wanted):
            raise WorkFailed(f"{name} and what the checkpoint gives differ: no bundle was written")


def _feed(
    served: ServedRanker, histories: Histories, seen: Histories, max_history: int, items: int, k: int
) -> dict[str, NDArray[Any]]:
    exclude = np.zeros((len(seen), max(1, *(len(row) for row in seen))), dtype=np.int32)
    for row, known in zip(exclude, seen, strict=True):
        row[: len(known)] = known
    return {
        "history": encode_histories(histories, max_history, items),
        "exclude": exclude,
        "restricted": np.zeros((len(histories), len(served.ranker.top.columns)), dtype=np.bool_),
        "include": np.zeros((len(histories), 1), dtype=np.int32),
        "k": np.array(k, dtype=np.int64),
        **({"recent": served.recent} if len(served.recent) else {}),
    }


def _real_histories(dataset: Dataset, count: int, max_history: int) -> Histories:
    """Histories before test events; the first ones cut to the lengths at which an encoding is most likely to be wrong."""
    cases = contexts(dataset, "test")
    order = np.random.default_rng(0).permutation(len(cases))
    found = [history[history > 0] for history in (cases.history(case) for case in order[: 4 * count])]
    found = sorted((history for history in found if len(history)), key=len, reverse=True)[:count]
    if not found:
        raise WorkFailed(f"{dataset.path}: no test event has a known item before it: nothing to compare the graph with")
    lengths = (1, 2, max_history, max_history + 1)
    return [history[-length:] for history, length in zip(found, lengths, strict=False)] + found[4:]


def _warmup(
    served: ServedRanker, histories: Histories, max_history: int, dataset: Dataset, items: pl.DataFrame
) -> list[WarmupRequest]:
    scores, index = ask(served, histories, histories, max_history, dataset.items, WARMUP_K)
    ids, domains = items["item_id"].to_list(), items["domain"].to_list()
    return [
        WarmupRequest(
            user_id=f"warmup-{number}",
            history=[(domains[item - 1], ids[item - 1]) for item in history],
            k=WARMUP_K,
            answer={
                domain: [
                    (ids[item - 1], float(score))
                    for item, score in zip(index[number, place], scores[number, place], strict=True)
                    if item
                ]
                for place, domain in enumerate(dataset.domains)
            },
        )
        for number, history in enumerate(histories)
    ]


def _items(dataset: Dataset, served: ServedRanker) -> pl.DataFrame:
    items = dataset.catalogue()
    for days, counts in zip(served.half_lives, served.recent, strict=True):
        items = items.with_columns(pl.Series(recent_column(days), counts[1:-1]))
    empty = [name for name in ("title", "category") if name in items.columns and items[name].null_count() == len(items)]
    return items.drop(empty)
