"""What the servers under test read: users' histories in Redis, and a bundle in the form in which peers open it."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import redis

from formats.bundle import Bundle
from service.history.keys import history_key
from service.history.packed import EVENT, pack
from service.ranking.catalog import Catalog, read_catalog
from syncrec.serving_bench.peer import CATALOGUE, HASHES, ORDER, RECENT
from syncrec.serving_bench.peer import Catalogue as PeerCatalogue

FIRST_EVENT = 1_700_000_000


def write_for_peers(bundle: Bundle, folder: Path) -> Catalog:
    """Write what `syncrec.serving_bench.peer.Model` opens; returns the catalogue, which takes a moment to read."""
    catalog = read_catalog(bundle)
    titles = [catalog.titles.get(index, "") for index in range(catalog.items + 1)]
    content = PeerCatalogue(
        catalog.model_version, list(catalog.domains), catalog.max_history, catalog.item_ids, titles, str(bundle.graph)
    )
    (folder / CATALOGUE).write_text(json.dumps(asdict(content)))
    np.save(folder / HASHES, catalog.hashes)
    np.save(folder / ORDER, catalog.at_places(np.arange(catalog.items)))
    np.save(folder / RECENT, bundle.recent())
    return catalog


def store_users(url: str, catalog: Catalog, users: int, events: int) -> int:
    """Give users u0, u1, ... histories of so many different items; returns the server's process id."""
    random = np.random.default_rng(0)
    with redis.Redis.from_url(url) as client:
        pipeline = client.pipeline(transaction=False)
        for number in range(users):
            history = np.zeros(events, dtype=EVENT)
            history["item_hash"] = random.choice(catalog.hashes, events, replace=False)
            history["timestamp"] = FIRST_EVENT + np.arange(events)
            pipeline.set(history_key(f"u{number}"), pack(history))
        pipeline.execute()
        return int(client.info("server")["process_id"])
