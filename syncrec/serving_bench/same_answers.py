"""Before anything is measured: that all servers answer the same."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from formats.errors import WorkFailed
from syncrec.serving_bench.servers import Server

COMPARED_USERS = 100


def check_same_answers(servers: Sequence[Server], key: str, users: int) -> float:
    """Ask every server for the same users, one at a time, and compare with the first server's answers.

    Returns:
        seconds that an answer took, on average.
    Raises:
        WorkFailed: a server does not answer by its model, or answers other items; the message names user and domain.
    """
    started = time.perf_counter()
    first, *others = servers
    numbers = range(min(users, COMPARED_USERS))
    expected = _answers(first, key, numbers)
    for server in others:
        for number, wanted, found in zip(numbers, expected, _answers(server, key, numbers), strict=True):
            if found != wanted:
                domain = next((name for name in wanted if found.get(name) != wanted[name]), "other domains")
                raise WorkFailed(f"{server.name} and {first.name} answer otherwise for u{number}: {domain}")
    return (time.perf_counter() - started) / (len(servers) * len(numbers))


def _answers(server: Server, key: str, numbers: Iterable[int]) -> list[dict[str, list[str]]]:
    url = f"http://127.0.0.1:{server.port}"
    with httpx.Client(base_url=url, headers={"x-api-key": key}, timeout=30) as client:
        return [_items(server, client, number) for number in numbers]


def _items(server: Server, client: httpx.Client, number: int) -> dict[str, list[str]]:
    response = client.post("/recommend", json={"user_id": f"u{number}"})
    answer: dict[str, Any] = response.json() if response.status_code == httpx.codes.OK else {}
    if answer.get("source") != "model":
        raise WorkFailed(f"{server.name} answers u{number} with {response.status_code}, not by its model")
    return {domain: [item["item_id"] for item in items] for domain, items in answer["domains"].items()}
