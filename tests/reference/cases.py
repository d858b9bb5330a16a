"""Cases written by hand over a catalogue of three domains, and scorers that are easy to foresee."""

import numpy as np

from training.cases import Cases
from training.ranking import Catalogue

SIZES = (5, 12, 3)  # items 1-5, 6-17, 18-20
FIRST = (1, 6, 18)
CATALOGUE = Catalogue(SIZES, np.array([0, 9, 7, 7, 5, 1, *range(12, 0, -1), 3, 3, 2], dtype=np.float32))


def domain_of(item):
    return sum(item >= first for first in FIRST)  # from 1


def cases_of(*given):
    """(history, target) or, for a cold target, (history, 0, its domain)."""
    events, domains, start, position = [], [], [], []
    for history, target, *domain in given:
        start.append(len(events))
        events += [*history, target]
        domains += [*(domain_of(item) if item else 1 for item in history), *(domain or [domain_of(target)])]
        position.append(len(events) - 1)
    return Cases(
        item_index=np.array(events, dtype=np.int32),
        domain=np.array(domains, dtype=np.int16),
        timestamp=np.arange(len(events)),
        user_offsets=np.array([*start, len(events)]),
        user=np.arange(len(given)),
        start=np.array(start),
        position=np.array(position),
    )


def random_cases(count, seed=0):
    random = np.random.default_rng(seed)
    return cases_of(
        *((random.integers(1, 21, random.integers(1, 9)).tolist(), int(random.integers(1, 21))) for _ in range(count))
    )


def by_history(cases, domain):
    """A scorer with many ties that depends on the whole history."""
    columns = CATALOGUE.columns(domain)
    items = np.arange(columns.start, columns.stop)
    return np.stack([(items * (1 + h.sum()) + len(h)) % 4 for h in cases.histories()]).astype(np.float32)


def constant(cases, domain):
    columns = CATALOGUE.columns(domain)
    return np.zeros((len(cases), columns.stop - columns.start), dtype=np.float32)


def falling(cases, domain):
    """The lower the item, the better."""
    columns = CATALOGUE.columns(domain)
    return np.tile(-np.arange(columns.start, columns.stop, dtype=np.float32), (len(cases), 1))
