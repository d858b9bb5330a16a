"""What a bundle knows of popularity, kept in Redis from the first bundle on: live counts begin with it, not with nothing."""

from collections.abc import Sequence

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.bundle import Bundle
from service.ranking.decay import DecayedCounts, at_steady_rate

DAY_S = 86_400
# Where a bundle has only counts of all time: as if they had been decaying this slowly.
ALL_TIME_HALF_LIFE_DAYS = 365.0


class Seed(msgspec.Struct, frozen=True, array_like=True):
    """Decayed counts of one domain. counts: float32, little-endian, [half-lives, items]."""

    day: int
    half_lives_days: list[float]
    item_ids: list[str]
    counts: bytes

    def at(self, half_lives_days: Sequence[float]) -> NDArray[np.float64]:
        """The counts on `day` at any half-lives, [half-lives, items].

        Of a half-life that the bundle has not, the nearest one's, scaled as if events came at a steady rate.
        """
        known = np.asarray(self.half_lives_days)
        counts = np.frombuffer(self.counts, dtype="<f4").reshape(len(known), len(self.item_ids)).astype(np.float64)
        nearest = [int(np.abs(np.log(known / days)).argmin()) for days in half_lives_days]
        scales = [
            at_steady_rate(days) / at_steady_rate(known[one])
            for days, one in zip(half_lives_days, nearest, strict=True)
        ]
        scaled: NDArray[np.float64] = counts[nearest] * np.array(scales)[:, None]
        return scaled

    def counts_on(self, today: int, half_lives_days: Sequence[float]) -> DecayedCounts:
        """The counts as of a later day."""
        counts = DecayedCounts(half_lives_days, today)
        counts.add_decayed(counts.rows(self.item_ids), self.day, self.at(half_lives_days))
        return counts


def seeds_of(bundle: Bundle) -> dict[str, Seed]:
    """By domain. A bundle's counts are taken to be of the day on which it was made."""
    manifest, items = bundle.manifest, bundle.items()
    half_lives = list(manifest.recent_half_lives_days) or [ALL_TIME_HALF_LIFE_DAYS]
    counts = bundle.recent()[:, 1:-1]
    if not len(counts):
        counts = items["popularity"].cast(pl.Float32).to_numpy()[None, :]
    ids = items["item_id"].cast(pl.String).to_list()
    day = int(manifest.created_at.timestamp() // DAY_S)
    seeds, first = {}, 0
    for domain, size in manifest.items_per_domain.items():
        own = slice(first, first + size)
        seeds[domain] = Seed(day, half_lives, ids[own], np.ascontiguousarray(counts[:, own], dtype="<f4").tobytes())
        first += size
    return seeds
