"""Before anything is measured: that all servers answer the same."""

from collections.abc import Sequence
from typing import Any

import httpx

from formats.errors import WorkFailed
from syncrec.serving_bench.servers import Server

COMPARED_USERS = 100


def check_same_answers(servers: Sequence[Server], key: str, users: int) -> None:
    """Ask every server for the same users, one at a time, and compare with the first server's answers.

    Raises:
        WorkFailed: a server does not answer by its model, or answers other items; the message names user and domain.
    """
    first, *others = servers
    numbers = range(min(users, COMPARED_USERS))
    expected = [_items(first, key, number) for number in numbers]
    for server in others:
        for number, wanted in zip(numbers, expected, strict=True):
            found = _items(server, key, number)
            if found != wanted:
                domain = next((name for name in wanted if found.get(name) != wanted[name]), "other domains")
                raise WorkFailed(f"{server.name} and {first.name} answer otherwise for u{number}: {domain}")


def _items(server: Server, key: str, number: int) -> dict[str, list[str]]:
    response = httpx.post(
        f"http://127.0.0.1:{server.port}/recommend",
        json={"user_id": f"u{number}"},
        headers={"x-api-key": key},
        timeout=30,
    )
    answer: dict[str, Any] = response.json() if response.status_code == httpx.codes.OK else {}
    if answer.get("source") != "model":
        raise WorkFailed(f"{server.name} answers u{number} with {response.status_code}, not by its model")
    return {domain: [item["item_id"] for item in items] for domain, items in answer["domains"].items()}
