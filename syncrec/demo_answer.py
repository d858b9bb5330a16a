"""One household of the sample: what it bought, what the service answers, and both side by side."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from formats.errors import WorkFailed
from syncrec.console import table

K = 10
SHOWN = 5


@dataclass(frozen=True)
class Household:
    """A user of the sample. bought: item_id, domain, timestamp, title, oldest first."""

    user_id: str
    bought: pl.DataFrame


def choose_household(events: Path, items: Path) -> Household:
    """The household in the most departments, with the median number of purchases among those."""
    table = pl.read_csv(events, schema_overrides={"item_id": pl.String})
    counts = table.group_by("user_id").agg(domains=pl.col("domain").n_unique(), bought=pl.len())
    broadest = counts.filter(pl.col("domains") == pl.col("domains").max()).sort("bought", "user_id")
    user_id = broadest["user_id"][len(broadest) // 2]
    titles = pl.read_csv(items, schema_overrides={"item_id": pl.String}).select("item_id", "domain", "title")
    bought = table.filter(pl.col("user_id") == user_id).join(titles, on=["item_id", "domain"], how="left")
    return Household(user_id, bought.sort("timestamp", maintain_order=True))


def ask(url: str, household: Household) -> dict[str, Any]:
    """What the service recommends to the household.

    Raises:
        WorkFailed: it does not answer with 200.
    """
    try:
        response = httpx.post(f"{url}/recommend", json={"user_id": household.user_id, "k": K}, timeout=10)
    except httpx.HTTPError as error:
        raise WorkFailed(f"{url}/recommend: {error}") from error
    if response.status_code != httpx.codes.OK:
        raise WorkFailed(f"{url}/recommend: {response.status_code} {response.text}")
    answer: dict[str, Any] = response.json()
    return answer


def show_answer(household: Household, answer: dict[str, Any]) -> str:
    """What the household bought last in every domain, and beside it what is recommended there."""
    rows = []
    for domain, candidates in answer["domains"].items():
        last = household.bought.filter(pl.col("domain") == domain).reverse().head(SHOWN).iter_rows(named=True)
        left = [f"{_day(row['timestamp'])}  {_short(row['title'] or row['item_id'])}" for row in last]
        right = [
            (str(item["rank"]), _short(item.get("title") or item["item_id"]), f"{item['score']:.3f}")
            for item in candidates[:SHOWN]
        ]
        for place in range(max(len(left), len(right))):
            bought = left[place] if place < len(left) else ""
            recommended = right[place] if place < len(right) else ("", "", "")
            rows.append([domain if place == 0 else "", bought, *recommended])
    head = (
        f"household {household.user_id}: {len(household.bought)} purchases; model {answer['model_version']}, "
        f"source {answer['source']}, the first {SHOWN} of {K} per domain"
    )
    return f"\n{head}\n\n{table(['domain', 'bought last', 'rank', 'recommended', 'score'], rows, left=(0, 1, 3))}"


def _day(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp, UTC):%d %b}"


def _short(title: str) -> str:
    return title if len(title) <= 40 else f"{title[:39]}…"
