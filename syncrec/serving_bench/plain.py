"""`plain`: what a good engineer writes in an hour. FastAPI, pydantic in and out, redis.asyncio, ONNX Runtime in the endpoint.

It is as fast as this form can be: one process, the endpoint on the event loop and not in a thread (which costs twice as much
processor time), hiredis, uvloop, httptools, no access log, a session that does not spin, the filters and the top-k inside the
graph, and the answer given to FastAPI as the declared model, which pydantic writes as JSON without a detour.
"""

import os
from pathlib import Path

from fastapi import FastAPI
from pydantic import BaseModel, Field
from redis.asyncio import Redis

from syncrec.serving_bench.peer import FOLDER, REDIS_URL, Model, key_of


class Body(BaseModel):
    """What is asked."""

    user_id: str = Field(min_length=1, max_length=256)
    k: int = Field(default=10, ge=1, le=100)


class Item(BaseModel):
    """One recommended item."""

    item_id: str
    score: float
    rank: int
    title: str


class Answer(BaseModel):
    """What is answered."""

    recommendation_id: str
    user_id: str
    model_version: str
    source: str
    experiment: None
    missing_ids: list[str]
    domains: dict[str, list[Item]]


app = FastAPI()
model = Model(Path(os.environ[FOLDER]))
redis = Redis.from_url(os.environ[REDIS_URL])


@app.post("/recommend")
async def recommend(body: Body) -> Answer:
    """The best items per domain for one user."""
    stored: bytes | None = await redis.get(key_of(body.user_id))  # type: ignore[assignment]  # bytes, undecoded
    history = model.known_items(stored)
    scores, index = model.rank([history], body.k)
    return Answer.model_validate(model.answer(body.user_id, scores[0], index[0]))
