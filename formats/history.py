"""A history -> the array the network reads. The one place that training and the service share.

Item indices run from 1 to the number of items; 0 is padding. The index after the last item is the start of a sequence
(SOS, paper section 3.1: the first target has nothing but SOS before it).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

PADDING = 0


def start_index(items: int) -> int:
    """The index of SOS in a catalogue of this many items."""
    return items + 1


def known_window(item_index: NDArray[np.int32], max_history: int) -> NDArray[np.int32]:
    """The part of a history that the network reads: its newest `max_history` known items, oldest first.

    Args:
        item_index: oldest first, 0 where the item is unknown to the model, [events].
        max_history: window length, at least 1.
    Returns:
        [at most max_history], without zeros. Unknown items are skipped before the window is cut.
    """
    known: NDArray[np.int32] = item_index[item_index != PADDING]
    return known[-max_history:]


def encode_histories(histories: Sequence[NDArray[np.int32]], max_history: int, items: int) -> NDArray[np.int32]:
    """Histories -> the network's input: SOS, then the window; right-aligned, so the newest event is in the last slot.

    Args:
        histories: item indices of each user, oldest first, 0 where unknown.
        max_history: window length of the model.
        items: number of items in the catalogue.
    Returns:
        [batch, max_history + 1]; 0 is padding. A history without known items is SOS alone.
    """
    encoded = np.full((len(histories), max_history + 1), PADDING, dtype=np.int32)
    for row, history in zip(encoded, histories, strict=True):
        window = known_window(history, max_history)
        first = max_history - len(window)
        row[first] = start_index(items)
        row[first + 1 :] = window
    return encoded
