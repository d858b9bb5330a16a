"""Small datasets on disk, written by hand: the layout of training/dataset.py, nothing of `prepare`."""

import hashlib
import json
from pathlib import Path

import numpy as np
import polars as pl

from training.dataset import Dataset, open_dataset
from training.manifest import PARTS, DomainCounts, Manifest, PartCounts, Report, Split

TYPES = {"user_offsets": np.int64, "item_index": np.int32, "domain": np.int16, "timestamp": np.int64}


def write_dataset(folder, items_per_domain, train, validation=(), test=(), context=(), repeats="keep") -> Dataset:
    """Write and open a dataset.

    Args:
        folder: a new folder.
        items_per_domain: name -> number of items; item indices run from 1 in this order.
        train, validation, test, context: per user, oldest first, the item indices of that part; (0, domain) is an event of
            an unknown item. Users that only later parts know stand behind those of the earlier ones.
        repeats: what `prepare` would have been told.
    """
    folder = Path(folder)
    folder.mkdir(parents=True)
    names = tuple(items_per_domain)
    domain_of = np.concatenate([[0], np.repeat(np.arange(1, len(names) + 1), list(items_per_domain.values()))])
    given = {"train": train, "context": context, "validation": validation, "test": test}
    parts, files, users, before = {}, {}, 0, 0
    for name in PARTS:
        users = max(users, len(given[name]))
        lists = [list(given[name][user]) if user < len(given[name]) else [] for user in range(users)]
        events = [event if isinstance(event, tuple) else (event, domain_of[event]) for row in lists for event in row]
        arrays = {
            "user_offsets": np.concatenate([[0], np.cumsum([len(row) for row in lists])]),
            "item_index": np.array([item for item, _ in events]),
            "domain": np.array([domain for _, domain in events]),
            "timestamp": PARTS.index(name) * 10**6 + np.arange(len(events)),
        }
        (folder / name).mkdir()
        for array_name, array in arrays.items():
            np.save(folder / name / f"{array_name}.npy", array.astype(TYPES[array_name]))
        ids = pl.DataFrame({"user_id": pl.Series([f"u{user}" for user in range(before, users)], dtype=pl.String)})
        ids.write_parquet(folder / name / "user_ids.parquet")
        parts[name] = PartCounts(
            events=len(events),
            users=sum(1 for row in lists if row),
            new_users=users - before,
            cases=len(events) if name in {"validation", "test"} else 0,
            domains={domain: DomainCounts(events=0, users=0, cold=0) for domain in names},
        )
        before = users
    trained = [event for row in train for event in row]
    pl.DataFrame(
        {
            "item_index": np.arange(1, len(domain_of), dtype=np.int32),
            "item_id": [f"{name}-{n}" for name, size in items_per_domain.items() for n in range(1, size + 1)],
            "domain": [name for name, size in items_per_domain.items() for _ in range(size)],
            "popularity": np.bincount(trained, minlength=len(domain_of))[1:],
            "title": [f"Title {n}" for n in range(1, len(domain_of))],
        }
    ).write_parquet(folder / "items.parquet")
    for file in sorted(folder.rglob("*.*")):
        files[str(file.relative_to(folder))] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest = Manifest(
        split=Split(kind="leave-one-out", validation_from=None, test_from=None),
        domains=names,
        items_per_domain=items_per_domain,
        parts=parts,
        options={"repeats": repeats},
        report=Report(rows=(), threshold_rounds=(), tied_share=0.0),
        files=files,
        fingerprint=hashlib.sha256(json.dumps(files).encode()).hexdigest(),
        training_fingerprint="0" * 64,
    )
    (folder / "manifest.json").write_text(manifest.model_dump_json())
    return open_dataset(folder)


def random_histories(items_per_domain, users, longest, seed, most_of_domain=0.6):
    """Random histories of 1 to `longest` events; nobody owns more than that share of a domain, so negatives exist."""
    random = np.random.default_rng(seed)
    first = np.cumsum([1, *items_per_domain])
    histories = []
    for _ in range(users):
        allowed = [
            random.choice(np.arange(first[d], first[d + 1]), max(1, int(size * most_of_domain)), replace=False)
            for d, size in enumerate(items_per_domain)
        ]
        domains = random.integers(0, len(items_per_domain), random.integers(1, longest + 1))
        histories.append([int(random.choice(allowed[domain])) for domain in domains])
    return histories


def by_popularity(histories, items_per_domain):
    """The same histories with the items of every domain renumbered by falling popularity, as in a catalogue.

    Items without any event are given one, by one user for each, so that all are in training.
    """
    counts = np.bincount([item for row in histories for item in row], minlength=sum(items_per_domain) + 1)
    number = np.zeros(len(counts), dtype=np.int64)
    first = 1
    for size in items_per_domain:
        order = first + np.argsort(-counts[first : first + size], kind="stable")
        number[order] = np.arange(first, first + size)
        first += size
    return [[int(number[item]) for item in row] for row in histories]
