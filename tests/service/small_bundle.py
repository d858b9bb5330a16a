"""A small real bundle without torch: a hand-built ONNX graph, whose answers a slow reference knows."""

import time
from datetime import UTC, datetime

import numpy as np
import onnx
import polars as pl
from onnx import TensorProto, helper

from formats.arrays import write_array
from formats.bundle import (
    CARD,
    GRAPH,
    ITEMS,
    MAX_K,
    WARMUP,
    Manifest,
    WarmupRequest,
    graph_inputs,
    graph_outputs,
    write_bundle,
)
from formats.neighbours import NEIGHBOURS, NEIGHBOURS_KEPT
from formats.vectors import VECTORS

DOMAINS = {"Books": 40, "Toys": 25, "Games": 5}
MAX_HISTORY = 8
DIM = 6
ITEMS_IN_ALL = sum(DOMAINS.values())
NOW = time.time()  # popularity decays from a bundle's creation on
CATEGORIES = ("red", "green", "blue")


def ids(domain):
    """Item ids of a domain; "both" is an item of two domains."""
    return [
        f"{domain[0]}{n}" if (domain, n) not in {("Books", 3), ("Toys", 3)} else "both" for n in range(DOMAINS[domain])
    ]


def all_items():
    return [(domain, item_id) for domain in DOMAINS for item_id in ids(domain)]


def table(seed=0):
    """Item vectors, [1 + items + 1, dim]: padding, items, start."""
    vectors = np.random.default_rng(seed).normal(size=(ITEMS_IN_ALL + 2, DIM)).astype(np.float32)
    vectors[0] = 0
    return vectors


def unit_vectors(seed=0):
    """The item vectors at length 1, [items, dim]; row n is of item_index n + 1."""
    vectors = table(seed)[1:-1]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def neighbours(seed=0):
    """Some items of every domain for every item, [items, domain, kept]; in the largest there are fewer than fit."""
    random = np.random.default_rng(seed)
    found = np.zeros((ITEMS_IN_ALL, len(DOMAINS), NEIGHBOURS_KEPT), dtype=np.int32)
    first = 1
    for number, count in enumerate(DOMAINS.values()):
        for row in found[:, number]:
            own = first + random.permutation(count)[: random.integers(0, 8)]
            row[: len(own)] = own
        first += count
    return found


def reference_scores(item_index, seed=0):
    """What the graph scores, the slow and obvious way: mean of the window (start included), times each item, [1 + items]."""
    vectors = table(seed)
    window = [ITEMS_IN_ALL + 1, *[int(index) for index in item_index if index][-MAX_HISTORY:]]
    scores = vectors[: ITEMS_IN_ALL + 1] @ vectors[window].mean(axis=0)
    scores[0] = -np.inf
    return scores


def reference_list(item_index, domain, k, excluded=(), allowed=None, seed=0):
    """Item ids and scores of one domain, best first."""
    scores = reference_scores(item_index, seed)
    kept = [
        (float(scores[index]), item_id)
        for index, (name, item_id) in enumerate(all_items(), start=1)
        if name == domain and item_id not in excluded and (allowed is None or item_id in allowed)
    ]
    return [(item_id, score) for score, item_id in sorted(kept, reverse=True)[:k]]


def build_graph(seed=0, width_of_vectors=DIM):
    """Mean of the history's vectors times the table, filters, TopK per domain: the bundle's inputs and outputs."""
    width = ITEMS_IN_ALL + 1
    vectors = np.pad(table(seed), ((0, 0), (0, width_of_vectors - DIM)))  # zeros change no score
    constants = {
        "table": vectors,
        "scored": np.ascontiguousarray(vectors[:width].T),
        "minus_inf": np.array(-np.inf, dtype=np.float32),
        "zero": np.array(0, dtype=np.int32),
        "zero_64": np.array([0], dtype=np.int64),
        "one_64": np.array([1], dtype=np.int64),
        "axis_1": np.array([1], dtype=np.int64),
        "axis_2": np.array([2], dtype=np.int64),
        "batch_by_width": np.array([width], dtype=np.int64),
        "domain_of": np.repeat(np.arange(len(DOMAINS)), list(DOMAINS.values())).astype(np.int64),
        "unit": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "history"], ["embedded"]),
        helper.make_node("ReduceSum", ["embedded", "axis_1"], ["summed"], keepdims=0),
        helper.make_node("Greater", ["history", "zero"], ["is_item"]),
        helper.make_node("Cast", ["is_item"], ["is_item_f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["is_item_f", "axis_1"], ["count"], keepdims=1),
        helper.make_node("Div", ["summed", "count"], ["user"]),
        helper.make_node("MatMul", ["user", "scored"], ["raw"]),
        helper.make_node("Cast", ["exclude"], ["exclude_64"], to=TensorProto.INT64),
        helper.make_node("Cast", ["include"], ["include_64"], to=TensorProto.INT64),
        # closed: [batch, 1 + items], column 0 belongs to padding
        helper.make_node("Gather", ["restricted", "domain_of"], ["closed_items"], axis=1),
        helper.make_node("Slice", ["restricted", "zero_64", "one_64", "axis_1"], ["first_column"]),
        helper.make_node("Concat", ["first_column", "closed_items"], ["closed"], axis=1),
        helper.make_node("Where", ["closed", "minus_inf", "raw"], ["masked"]),
        helper.make_node("GatherElements", ["raw", "include_64"], ["opened"], axis=1),
        helper.make_node("ScatterElements", ["masked", "include_64", "opened"], ["with_included"], axis=1),
        helper.make_node("Shape", ["exclude_64"], ["exclude_shape"]),
        helper.make_node("Expand", ["minus_inf", "exclude_shape"], ["shut"]),
        helper.make_node("ScatterElements", ["with_included", "exclude_64", "shut"], ["answerable"], axis=1),
        helper.make_node("Reshape", ["k", "unit"], ["k_1"]),
    ]
    first = 1
    for number, count in enumerate(DOMAINS.values()):
        constants |= {
            f"from_{number}": np.array([first], dtype=np.int64),
            f"to_{number}": np.array([first + count], dtype=np.int64),
            f"offset_{number}": np.array(first, dtype=np.int64),
            f"pads_{number}": np.array([0, 0, 0, MAX_K], dtype=np.int64),
        }
        nodes += [
            helper.make_node("Slice", ["answerable", f"from_{number}", f"to_{number}", "axis_1"], [f"own_{number}"]),
            helper.make_node("Pad", [f"own_{number}", f"pads_{number}", "minus_inf"], [f"padded_{number}"]),
            helper.make_node("TopK", [f"padded_{number}", "k_1"], [f"best_{number}", f"column_{number}"], axis=1),
            helper.make_node("Add", [f"column_{number}", f"offset_{number}"], [f"index_{number}"]),
            helper.make_node("Unsqueeze", [f"best_{number}", "axis_1"], [f"best3_{number}"]),
            helper.make_node("Unsqueeze", [f"index_{number}", "axis_1"], [f"index3_{number}"]),
        ]
        first += count
    numbers = range(len(DOMAINS))
    nodes += [
        helper.make_node("Concat", [f"best3_{number}" for number in numbers], ["scores"], axis=1),
        helper.make_node("Concat", [f"index3_{number}" for number in numbers], ["indices_64"], axis=1),
        helper.make_node("Cast", ["indices_64"], ["indices"], to=TensorProto.INT32),
        helper.make_node("Equal", ["scores", "minus_inf"], ["is_none"]),
        helper.make_node("Where", ["is_none", "zero", "indices"], ["item_index"]),
    ]
    kinds = {
        "int32": TensorProto.INT32,
        "int64": TensorProto.INT64,
        "float32": TensorProto.FLOAT,
        "bool": TensorProto.BOOL,
    }

    def value(spec):
        return helper.make_tensor_value_info(spec.name, kinds[spec.dtype], spec.shape)

    graph = helper.make_graph(
        nodes,
        "small",
        [value(spec) for spec in graph_inputs(len(DOMAINS), MAX_HISTORY + 1)],
        [value(spec) for spec in graph_outputs(len(DOMAINS))],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def make_bundle(
    models,
    version="small-1",
    seed=0,
    titles=True,
    categories=True,
    warmup_shift=0.0,
    created=0,
    vectors=True,
    width_of_vectors=DIM,
):
    """Write a bundle whose answers `reference_list` knows.

    vectors: of the items, [items, dim], with `neighbours`; True for `unit_vectors`, None for a bundle without similar items.
    """
    items = all_items()
    frame = pl.DataFrame(
        {
            "item_index": pl.Series(range(1, len(items) + 1), dtype=pl.Int32),
            "item_id": [item_id for _, item_id in items],
            "domain": [domain for domain, _ in items],
            "popularity": pl.Series(
                [count - place for count in DOMAINS.values() for place in range(count)], dtype=pl.Int64
            ),
        }
    )
    if titles:
        frame = frame.with_columns(
            title=pl.Series([f'Title "{item_id}" é' if n % 7 else None for n, (_, item_id) in enumerate(items)])
        )
    if categories:
        frame = frame.with_columns(category=pl.Series([CATEGORIES[n % 3] for n in range(len(items))]))
    warmup = [
        _warmup(events, k, seed, warmup_shift)
        for events, k in [((1, 5, 50), 10), ((66,), 3), ((), 10), ((2,) * 20, 10)]
    ]

    def fill(folder):
        onnx.save(build_graph(seed, width_of_vectors), folder / GRAPH)
        frame.write_parquet(folder / ITEMS)
        (folder / WARMUP).write_text("".join(request.model_dump_json() + "\n" for request in warmup))
        (folder / CARD).write_text("a bundle of the tests\n")
        if vectors is not None:
            write_array(folder / VECTORS, unit_vectors(seed) if vectors is True else vectors)
            write_array(folder / NEIGHBOURS, neighbours(seed))

    def manifest(files):
        return Manifest(
            model_version=version,
            created_at=datetime.fromtimestamp(NOW + created, UTC),
            domains=tuple(DOMAINS),
            items_per_domain=DOMAINS,
            max_history=MAX_HISTORY,
            dim=DIM,
            inputs=graph_inputs(len(DOMAINS), MAX_HISTORY + 1),
            outputs=graph_outputs(len(DOMAINS)),
            training_config={},
            dataset_fingerprint="none",
            evaluation={},
            opset=20,
            files=files,
        )

    return write_bundle(models, manifest, version, fill)


def _warmup(events, k, seed, shift):
    history = [all_items()[index - 1] for index in events]
    answer = {
        domain: [
            (item_id, score + shift)
            for item_id, score in reference_list(events, domain, k, [i for d, i in history if d == domain], seed=seed)
        ]
        for domain in DOMAINS
    }
    return WarmupRequest(user_id="warm", history=history, k=k, answer=answer)
