"""Histories -> training batches: windows, packing of both tasks' sequences, negatives.

A window of n events gives n targets. CDSR reads [SOS, v1 .. v(n-1)] for them; SDSR reads, for every domain, SOS and that
domain's events but the last. Both are n inputs, so both fit into the same n slots of a row and nothing depends on the number
of domains. Several windows share a row, kept apart by segments.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from formats.errors import WorkFailed
from formats.history import start_index
from model.syncrec import Sequences
from training.dataset import Dataset, EventTable

Ints = NDArray[np.int64]


class Candidates(NamedTuple):
    """Of every domain, distinct items drawn uniformly from it, [candidate] each, and how many items it has."""

    drawn: list[Tensor]
    items_per_domain: tuple[int, ...]


class Batch(NamedTuple):
    """One rank's share of a global batch; targets are sorted by domain.

    single, cross: the inputs of both tasks, [rows, slots].
    single_slot, cross_slot: flat place of the input that predicts each target, [target].
    target: item indices, [target].
    negative: one item that the user has not, for each target, [target]; None if candidates are drawn instead.
    candidates: what all targets of a domain are compared with; None if each has a negative instead.
    domain: 0-based, [target].
    user: number of the target's user among the users of the global batch, [target].
    users: users in the global batch.
    targets_per_domain: of this share.
    """

    single: Sequences
    cross: Sequences
    single_slot: Tensor
    cross_slot: Tensor
    target: Tensor
    negative: Tensor | None
    candidates: Candidates | None
    domain: Tensor
    user: Tensor
    users: int
    targets_per_domain: list[int]


@dataclass(frozen=True)
class Windows:
    """Stretches of the event table that are trained on: user, first event and length of each, [windows]."""

    user: Ints
    start: Ints
    length: Ints

    def __len__(self) -> int:
        return len(self.user)

    def take(self, which: Ints) -> "Windows":
        """The windows with these numbers."""
        return Windows(self.user[which], self.start[which], self.length[which])


def cut_windows(user_offsets: Ints, slots: int, every: bool, random: np.random.Generator) -> Windows:
    """Windows of at most `slots` events.

    Args:
        user_offsets: [users + 1].
        slots: targets of a full window.
        every: cut each whole history into windows, the first of random length so that an epoch cuts elsewhere than the
            last; otherwise only the newest window of each user.
        random: draws the first length.
    """
    first, end = user_offsets[:-1], user_offsets[1:]
    count = end - first
    users = np.flatnonzero(count)
    if not every:
        length = np.minimum(count[users], slots)
        return Windows(users, end[users] - length, length)
    head = np.minimum(random.integers(1, slots + 1, len(users)), count[users])
    # A history that fits is one window: nothing is gained by cutting it.
    head = np.where(count[users] <= slots, count[users], head)
    windows = 1 + -(-(count[users] - head) // slots)
    user = np.repeat(users, windows)
    number = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)
    start = first[user] + np.where(number == 0, 0, np.repeat(head, windows) + (number - 1) * slots)
    stop = np.where(number == 0, first[user] + np.repeat(head, windows), np.minimum(start + slots, end[user]))
    return Windows(user, start, stop - start)


class NegativeSampler:
    """Uniform negatives from the target's domain that the user has no training event with.

    The r-th free item of a domain is found by bisection over the user's own items, so nothing is drawn twice. Items that
    come later than training are free: excluding them would be knowledge of the future.
    """

    def __init__(self, events: EventTable, items_per_domain: tuple[int, ...]) -> None:
        users, domains = events.users, len(items_per_domain)
        self.size = np.array(items_per_domain, dtype=np.int64)
        self.first = 1 + np.cumsum(self.size) - self.size
        self.domains, self.base = domains, int(self.size.max()) + 1
        user = np.repeat(np.arange(users), np.diff(events.user_offsets))
        owned = np.unique(user * (self.size.sum() + 1) + events.item_index)
        user, item = np.divmod(owned, self.size.sum() + 1)
        domain = np.searchsorted(self.first, item, side="right") - 1
        pair = user * domains + domain
        self.pair_start = np.searchsorted(pair, np.arange(users * domains + 1))
        owned_before = np.arange(len(pair)) - self.pair_start[pair]
        # Free items below each owned one; ascending within a pair, and pairs ascend: one sorted key for all.
        self.key = pair * self.base + (item - self.first[domain] - owned_before)

    def draw(self, user: Ints, domain: Ints, random: NDArray[np.float64]) -> Ints:
        """One negative for each (user, domain).

        Args:
            user, domain: [n], 0-based.
            random: uniform in [0, 1), [n].
        Raises:
            WorkFailed: a user has every item of a domain.
        """
        pair = user * self.domains + domain
        start = self.pair_start[pair]
        free = self.size[domain] - (self.pair_start[pair + 1] - start)
        if (free < 1).any():
            worst = int(np.argmax(free < 1))
            raise WorkFailed(
                f"user number {user[worst]} has every item of domain number {domain[worst] + 1} in training, so there is "
                "no negative: drop the domain, or users with that many events"
            )
        place = (random * free).astype(np.int64)
        below = np.searchsorted(self.key, pair * self.base + place, side="right") - start
        negative: Ints = self.first[domain] + place + below
        return negative


class Batches:
    """The batches of a run. Everything random is drawn from (seed, epoch, step), so any step can be made again."""

    def __init__(
        self,
        dataset: Dataset,
        slots: int,
        batch_windows: int,
        every_window: bool,
        seed: int,
        candidates: int | None = None,
    ) -> None:
        """Batches of `batch_windows` windows.

        Args:
            dataset: whose training events.
            slots: of a row, and targets of a full window.
            batch_windows: windows per step, over all processes.
            every_window: see `cut_windows`.
            seed: of order, cuts, negatives and candidates.
            candidates: draw so many items per domain and step, at most all of them; None: a negative for each target.
        """
        self.events = dataset.train
        self.items = dataset.items
        self.domains = len(dataset.domains)
        self.slots, self.batch_windows, self.every_window, self.seed = slots, batch_windows, every_window, seed
        self.items_per_domain = dataset.items_per_domain
        self.candidates = candidates
        self.negatives = NegativeSampler(self.events, dataset.items_per_domain)

    def windows(self, epoch: int) -> Windows:
        """The windows of an epoch in the order in which they are trained on."""
        random = np.random.default_rng((self.seed, 1, epoch))
        windows = cut_windows(np.asarray(self.events.user_offsets), self.slots, self.every_window, random)
        return windows.take(random.permutation(len(windows)))

    def epoch(self, epoch: int, first_step: int = 0, rank: int = 0, ranks: int = 1) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on; of each global batch the share of one of `ranks` processes."""
        windows = self.windows(epoch)
        steps = self.steps(len(windows))
        for step in range(first_step, steps):
            # Equal shares: a small last batch would give a noisy gap the same say as all others.
            which = np.arange(step * len(windows) // steps, (step + 1) * len(windows) // steps)
            yield self._batch(windows.take(which), np.random.default_rng((self.seed, 2, epoch, step)), rank, ranks)

    def steps(self, windows: int) -> int:
        """Steps that so many windows take, none with more than `batch_windows`; no window is dropped."""
        return -(-windows // self.batch_windows)

    def _batch(self, windows: Windows, random: np.random.Generator, rank: int, ranks: int) -> Batch:
        # Negatives are drawn for the whole global batch in one order, so that any number of ranks draws the same ones.
        window = np.repeat(np.arange(len(windows)), windows.length)
        place = np.arange(len(window)) - np.repeat(np.cumsum(windows.length) - windows.length, windows.length)
        event = windows.start[window] + place
        target = np.asarray(self.events.item_index[event], dtype=np.int64)
        domain = np.asarray(self.events.domain[event], dtype=np.int64) - 1
        negative, candidates = None, None
        if self.candidates is None:
            negative = self.negatives.draw(windows.user[window], domain, random.random(len(event)))
        else:
            candidates = self._draw_candidates(self.candidates, random)
        users, user_number = np.unique(windows.user, return_inverse=True)
        mine = window % ranks == rank
        if ranks > 1:
            window, place, target, domain = (a[mine] for a in (window, place, target, domain))
            negative = None if negative is None else negative[mine]
        row, column = pack(windows.length[rank::ranks], self.slots)
        base = np.zeros(len(windows), dtype=np.int64)
        base[rank::ranks] = row * self.slots + column
        return self._assemble(
            rows=int(row.max(initial=-1)) + 1,
            base=base[window],
            window=window,
            place=place,
            target=target,
            domain=domain,
            negative=negative,
            candidates=candidates,
            user=user_number[window],
            users=len(users),
        )

    def _draw_candidates(self, count: int, random: np.random.Generator) -> Candidates:
        first = 1
        drawn = []
        for size in self.items_per_domain:
            drawn.append(torch.from_numpy(first + random.choice(size, min(count, size), replace=False, shuffle=False)))
            first += size
        return Candidates(drawn, self.items_per_domain)

    def _assemble(
        self,
        *,
        rows: int,
        base: Ints,
        window: Ints,
        place: Ints,
        target: Ints,
        domain: Ints,
        negative: Ints | None,
        candidates: Candidates | None,
        user: Ints,
        users: int,
    ) -> Batch:
        start = start_index(self.items)
        cross_slot = base + place
        cross_input = np.where(place == 0, start, np.roll(target, 1))
        cross = self._sequences(rows, cross_slot, cross_input, place, window + 1, np.zeros_like(domain))
        # The same targets by window, then domain, in order of time: each domain's sequence lies in one stretch.
        group = window * self.domains + domain
        order = np.argsort(group, kind="stable")
        first = np.flatnonzero(np.diff(group[order], prepend=-1))
        in_group = np.arange(len(order)) - np.repeat(first, np.diff(np.append(first, len(order))))
        single_input = np.where(in_group == 0, start, np.roll(target[order], 1))
        single_slot = np.empty_like(cross_slot)
        single_slot[order] = cross_slot
        single = self._sequences(rows, cross_slot, single_input, in_group, group[order] + 1, domain[order])
        by_domain = np.argsort(domain, kind="stable")
        return Batch(
            single=single,
            cross=cross,
            single_slot=torch.from_numpy(single_slot[by_domain]),
            cross_slot=torch.from_numpy(cross_slot[by_domain]),
            target=torch.from_numpy(target[by_domain]),
            negative=None if negative is None else torch.from_numpy(negative[by_domain]),
            candidates=candidates,
            domain=torch.from_numpy(domain[by_domain]),
            user=torch.from_numpy(user[by_domain]),
            users=users,
            targets_per_domain=np.bincount(domain, minlength=self.domains).tolist(),
        )

    def _sequences(self, rows: int, slot: Ints, item: Ints, position: Ints, segment: Ints, domain: Ints) -> Sequences:
        filled = np.zeros((4, rows * self.slots), dtype=np.int64)
        filled[:, slot] = item, position, segment, domain
        return Sequences(*torch.from_numpy(filled.reshape(4, rows, self.slots)))


def pack(lengths: Ints, slots: int) -> tuple[Ints, Ints]:
    """Put windows into rows, the longest first, each into the first row with room.

    Args:
        lengths: at most `slots` each, [windows].
        slots: room of a row.
    Returns:
        row and first column of each window, [windows] each.
    """
    row, column = np.zeros_like(lengths), np.zeros_like(lengths)
    used = np.zeros(len(lengths), dtype=np.int64)
    for window in np.argsort(-lengths, kind="stable"):
        # First row with room; rows beyond the last opened one are empty and always fit.
        chosen = int(np.argmax(used + lengths[window] <= slots))
        row[window], column[window] = chosen, used[chosen]
        used[chosen] += lengths[window]
    return row, column
