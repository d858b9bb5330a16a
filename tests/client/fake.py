"""A service of a few lines over real HTTP: answers as the contract says, or as a test has scripted."""

import asyncio
import json
import time
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import parse_qs

ANSWER = {
    "recommendation_id": "0198-r",
    "user_id": "u42",
    "model_version": "m1",
    "source": "model",
    "experiment": {"key": "home", "variant": "b", "reason": "SPLIT", "bucket": 17},
    "missing_ids": ["B9"],
    "domains": {"Books": [{"item_id": "B1", "score": 1.25, "rank": 1, "title": "Dune", "price": 9}], "Toys": []},
    "of_a_newer_service": {"anything": [1]},
}


@dataclass
class Asked:
    """One request as it arrived. path: still quoted."""

    method: str
    path: str
    query: dict
    headers: dict
    body: object


@dataclass
class Scripted:
    """What to answer once, instead of the usual. pieces: sent one by one, `pause_s` apart; a status of None: hang up."""

    status: int | None = 200
    body: object = b""
    headers: dict = field(default_factory=dict)
    pause_s: float = 0
    pieces: int = 1


def wait_for(condition, timeout_s=20):
    """Return once the condition holds; fail if it does not within a generous time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def problem(status, **fields):
    """A problem document, scripted."""
    return Scripted(
        status,
        {"type": "about:blank", "title": "no", "status": status, "detail": "no", "request_id": "r", **fields},
        {"content-type": "application/problem+json"},
    )


class Fake:
    """The ASGI application; `asked` has what came, `script` what comes next, `files` what else is served."""

    def __init__(self):
        self.asked = []
        self.script = deque()
        self.event_ids = set()
        self.files = {}

    async def __call__(self, scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] in self.files:
            await self._answer(send, Scripted(200, *self.files[scope["path"]]))
            return
        asked = Asked(
            scope["method"],
            scope["raw_path"].decode(),
            parse_qs(scope["query_string"].decode()),
            {name.decode(): value.decode() for name, value in scope["headers"]},
            json.loads(body) if body else None,
        )
        self.asked.append(asked)
        await self._answer(send, self.script.popleft() if self.script else self.usual(asked))

    async def _answer(self, send, answer):
        if answer.status is None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            raise ConnectionAbortedError  # uvicorn hangs up
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        headers = {"content-type": "application/json", **answer.headers, "content-length": str(len(content))}
        await asyncio.sleep(answer.pause_s)
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        size = -(-len(content) // answer.pieces) or 1
        for start in range(0, len(content), size):
            await send({"type": "http.response.body", "body": content[start : start + size], "more_body": True})
            if answer.pieces > 1:
                await asyncio.sleep(answer.pause_s)
        await send({"type": "http.response.body", "body": b""})

    def usual(self, asked):
        """What a service in good health says."""
        match [asked.method, *asked.path.split("/")[1:]]:
            case ["POST", "recommend"]:
                return Scripted(body={**ANSWER, "user_id": asked.body["user_id"]})
            case ["POST", "recommend", "batch"]:
                results = [{**ANSWER, "user_id": one["user_id"]} for one in asked.body["requests"]]
                return Scripted(body={"results": results})
            case ["POST", "events"]:
                return Scripted(202, self._take(asked.body["events"]))
            case ["GET", "items", _, _, "similar"]:
                return Scripted(
                    body={"domain": "Books", "item_id": "B", "model_version": "m1", "domains": ANSWER["domains"]}
                )
            case ["GET", "users", user_id, "history"]:
                events = [{"domain": "Books", "item_id": "B1", "timestamp": 1_700_000_000}]
                return Scripted(body={"user_id": user_id, "events": events, "older_items": 3})
            case ["DELETE", "users", user_id]:
                return Scripted(200, {"user_id": user_id, "erased": True})
            case ["PUT", "items", domain, item_id]:
                return Scripted(200, {"domain": domain, "item_id": item_id, **asked.body, "known": True})
            case ["GET", "models"]:
                models = [{"model_version": "m1", "state": "active"}, {"model_version": "m0", "state": "previous"}]
                return Scripted(body={"active": "m1", "models": models})
            case ["POST", "models", *_]:
                return Scripted(200, {"active": "m0", "before": "m1"})
            case ["GET", "readyz"]:
                return Scripted(body={"status": "ready"})
        return problem(404)

    def _take(self, events):
        known = {"Books", "Toys"}
        rejected = [
            {"index": index, "reason": f"domain: unknown domain '{event['domain']}'"}
            for index, event in enumerate(events)
            if event["domain"] not in known
        ]
        ids = [event["event_id"] for event in events if event["domain"] in known]
        new = set(ids) - self.event_ids
        self.event_ids |= new
        return {"accepted": len(new), "duplicates": len(ids) - len(new), "rejected": rejected}
