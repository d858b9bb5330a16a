"""A baseline's network as a scorer."""

import numpy as np
import torch
from numpy.typing import NDArray

from formats.history import encode_histories, known_window
from model.baselines.network import NextItemNetwork
from model.syncrec import Sequences, one_per_row
from training.cases import Cases
from training.ranking import Catalogue, Histories, Scorer


def mixed_scorer(network: NextItemNetwork, catalogue: Catalogue, max_history: int) -> Scorer:
    """Reads the newest events of all domains."""

    def score(cases: Cases, domain: int) -> NDArray[np.float32]:
        sequences = newest_events(cases.histories(), max_history, sum(catalogue.items_per_domain))
        users = network.at_end(sequences, domain)
        scores: NDArray[np.float32] = (users @ network.item_vectors()[catalogue.columns(domain)].T).numpy()
        return scores

    return torch.inference_mode()(score)


def newest_events(histories: Histories, max_history: int, items: int) -> Sequences:
    """A row per history: SOS and the newest known events, right-aligned; no wider than the longest needs.

    Args:
        histories: item indices of each user, oldest first, 0 where unknown.
        max_history: events that are read.
        items: number of items in the catalogue.
    """
    longest = max(len(known_window(history, max_history)) for history in histories)
    return one_per_row(torch.from_numpy(encode_histories(histories, max(longest, 1), items)), domain=0)
