"""What the servers that ours is compared with share: the same histories, graph and items, read the same way.

Needs numpy, ONNX Runtime and redis only, so that it runs in the environment of a peer that pins its own versions.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from formats.history import encode_histories
from formats.runtime import import_onnxruntime

# The variables that tell a peer where its folder and its Redis are.
FOLDER, REDIS_URL = "SYNCREC_BENCH_FOLDER", "SYNCREC_BENCH_REDIS"
CATALOGUE, HASHES, ORDER, RECENT = "catalogue.json", "hashes.npy", "order.npy", "recent.npy"
# One version byte, then 12 bytes an event, oldest first: service/history/packed.py.
EVENT: Final = np.dtype([("item_hash", "<u8"), ("timestamp", "<u4")])


@dataclass(frozen=True)
class Catalogue:
    """`catalogue.json`. Places 0 of `item_ids` and `titles` are unused. graph: path of the ONNX file."""

    model_version: str
    domains: list[str]
    max_history: int
    item_ids: list[str]
    titles: list[str]
    graph: str


class Model:
    """A bundle, opened as peers use it."""

    def __init__(self, folder: Path) -> None:
        self.catalogue = Catalogue(**json.loads((folder / CATALOGUE).read_text()))
        self._hashes: NDArray[np.uint64] = np.load(folder / HASHES)
        self._order: NDArray[np.int32] = np.load(folder / ORDER)
        self._recent: NDArray[np.float32] = np.load(folder / RECENT)
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        # As ours: threads that spin while they wait take a core from parsing.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            self.catalogue.graph, sess_options=options, providers=["CPUExecutionProvider"]
        )

    def known_items(self, stored: bytes | None) -> NDArray[np.int32]:
        """What Redis holds of a user -> the indices of the items that the model knows, oldest first."""
        if stored is None:
            return np.zeros(0, dtype=np.int32)
        hashes = np.frombuffer(stored, dtype=EVENT, offset=1)["item_hash"]
        place = np.searchsorted(self._hashes, hashes)
        place[place == len(self._hashes)] = 0
        found: NDArray[np.int32] = self._order[place][self._hashes[place] == hashes]
        return found

    def rank(self, histories: Sequence[NDArray[np.int32]], k: int) -> tuple[Any, Any]:
        """Scores and item indices, [batch, domain, k]; what a user has had is not answered."""
        exclude = np.zeros((len(histories), max(1, *map(len, histories))), dtype=np.int32)
        for row, history in zip(exclude, histories, strict=True):
            row[: len(history)] = history
        feed = {
            "history": encode_histories(histories, self.catalogue.max_history, len(self._hashes)),
            "exclude": exclude,
            "restricted": np.zeros((len(histories), len(self.catalogue.domains)), dtype=np.bool_),
            "include": np.zeros((len(histories), 1), dtype=np.int32),
            "k": np.array(k, dtype=np.int64),
        }
        if len(self._recent):
            feed["recent"] = self._recent
        scores, index = self._session.run(["scores", "item_index"], feed)
        return scores.tolist(), index.tolist()

    def answer(self, user_id: str, scores: list[list[float]], index: list[list[int]]) -> dict[str, Any]:
        """The JSON of the contract, as objects; scores and item indices of one user, [domain, k]."""
        ids, titles = self.catalogue.item_ids, self.catalogue.titles
        return {
            "recommendation_id": str(uuid.uuid4()),
            "user_id": user_id,
            "model_version": self.catalogue.model_version,
            "source": "model",
            "experiment": None,
            "missing_ids": [],
            "domains": {
                domain: [
                    {"item_id": ids[item], "score": score, "rank": rank, "title": titles[item]}
                    for rank, (item, score) in enumerate(zip(items, values, strict=True), start=1)
                    if item
                ]
                for domain, items, values in zip(self.catalogue.domains, index, scores, strict=True)
            },
        }


def key_of(user_id: str) -> str:
    """Where a user's history is in Redis."""
    return f"syncrec:history:{{{user_id}}}"
