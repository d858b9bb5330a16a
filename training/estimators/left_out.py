"""Leave one domain out: train without it and see which domains miss it."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def missed(with_all: Floats, without: Floats) -> list[float]:
    """What each domain loses when each of the others is left out of training, summed over the others, [domain].

    Args:
        with_all: held-out NLL of each domain after training on all, nats [domain].
        without: the same after training without the row's domain; the diagonal is not read, [domain, domain].
    """
    losses = without - with_all
    np.fill_diagonal(losses, 0)
    return losses.sum(axis=0).tolist()  # type: ignore[no-any-return]
