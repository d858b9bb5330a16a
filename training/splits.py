"""Which events train, which validate, which test. Only the times decide (temporal) or only the place (leave-one-out)."""

from enum import IntEnum
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

SplitKind = Literal["temporal", "leave-one-out"]
# Of the events' times, when the caller names no times.
VALIDATION_QUANTILE: Final = 0.8
TEST_QUANTILE: Final = 0.9


class Period(IntEnum):
    """When an event happened, seen from the cuts."""

    BEFORE = 0
    VALIDATION = 1
    TEST = 2


def quantile_cuts(timestamp: NDArray[np.int64]) -> tuple[int, int]:
    """The times where validation and test begin when nobody says: quantiles of the event times, each a real event's.

    They depend on all times, the newest included; name times to make training independent of what comes later.
    """
    places = [int(share * len(timestamp)) for share in (VALIDATION_QUANTILE, TEST_QUANTILE)]
    ordered = np.partition(timestamp, places)
    return int(ordered[places[0]]), int(ordered[places[1]])


def temporal_periods(timestamp: NDArray[np.int64], validation_from: int, test_from: int) -> NDArray[np.uint8]:
    """Period of each event when everybody is cut at the same times, [events]. A time is the first of its period."""
    periods = (timestamp >= validation_from).astype(np.uint8)
    periods += timestamp >= test_from
    return periods


def leave_one_out_periods(user: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Period of each event when a user's newest is the test and the one before validation, [events].

    Args:
        user: of each event, in final order, so that a user's events stand together, oldest first.
    """
    following = np.full(len(user) + 2, -1, dtype=np.int64)
    following[:-2] = user
    newest = following[1:-1] != user
    second = ~newest & (following[2:] != user)
    periods: NDArray[np.uint8] = newest * np.uint8(Period.TEST) + second * np.uint8(Period.VALIDATION)
    return periods
