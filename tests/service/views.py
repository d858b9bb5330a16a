"""Popularity as a bundle begins with it, without a Redis."""

import numpy as np

from service.ranking.popularity_view import Viewer
from service.ranking.seed import seeds_of

NO_COUNTS = np.zeros((0, 0), dtype=np.float32)  # for a graph that reads none


def view_of(bundle, catalog):
    """What is popular by the bundle alone."""
    seeds = seeds_of(bundle)
    counts = {domain: seed.counts_on(seed.day, [365.0]) for domain, seed in seeds.items()}
    return Viewer(catalog, [], ranked_row=0, weights={}).view(counts)
