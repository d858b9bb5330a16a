"""Rows of the event log, with ids of any time."""

import random

from service.events.served import Served, ServedList, Told

NOON = 1_790_078_400  # 2026-09-22 12:00 UTC
DAY = "2026-09-22"
DAY_S = 86_400


def uuid7(seconds, rng=random):
    digits = f"{int(seconds * 1000):012x}7{rng.getrandbits(12):03x}8{rng.getrandbits(60):015x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def served(user_id="u1", at=NOON, variant="a", items=("i1", "i2", "i3"), domain="Books", **fields):
    lists = [ServedList(domain, list(items))] if items else []
    given = {
        "recommendation_id": uuid7(at),
        "experiment": None if variant is None else "exp",
        "variant": variant,
        "reason": None if variant is None else "SPLIT",
        "source": "model",
        "model_version": "m1",
        "latency_ms": 2.5,
        "lists": lists,
    }
    return Served(user_id=user_id, **(given | fields))


def told(of=None, item_id="i1", user_id="u1", after_s=10.0, rank=1, event="click", **fields):
    given = {
        "domain": "Books",
        "timestamp": NOON + after_s,
        "event_id": f"e{random.getrandbits(60)}",
        "recommendation_id": None if of is None else of.recommendation_id,
    }
    return Told(user_id=user_id, item_id=item_id, event=event, rank=rank, **(given | fields))
