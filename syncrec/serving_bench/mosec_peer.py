"""mosec: a server in Rust before workers in Python, with batches; run by the environment of `--peer-python`."""

import os
from pathlib import Path
from typing import Any

import orjson
from mosec import Server, Worker
from redis import Redis

from syncrec.serving_bench.peer import FOLDER, REDIS_URL, Model, key_of


class Recommend(Worker):  # type: ignore[misc]  # mosec is not installed where types are checked
    """One process that ranks whole batches."""

    def __init__(self) -> None:
        super().__init__()
        self._model = Model(Path(os.environ[FOLDER]))
        self._redis = Redis.from_url(os.environ[REDIS_URL])

    def deserialize(self, data: bytes) -> Any:
        """The body; mosec's own way is slower."""
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        """The answer; mosec's own way indents it."""
        return orjson.dumps(data)

    def forward(self, data: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rank a batch."""
        stored: Any = self._redis.mget([key_of(body["user_id"]) for body in data])
        most = max(body.get("k", 10) for body in data)
        scores, index = self._model.rank([self._model.known_items(value) for value in stored], most)
        return [
            self._model.answer(
                body["user_id"],
                [values[: body.get("k", 10)] for values in row_scores],
                [items[: body.get("k", 10)] for items in row_index],
            )
            for body, row_scores, row_index in zip(data, scores, index, strict=True)
        ]


if __name__ == "__main__":
    server = Server()
    # As many at once as ours, and as short a wait as mosec allows.
    server.append_worker(Recommend, num=1, max_batch_size=32, max_wait_time=1, route="/recommend")
    server.run()
