"""Worlds of known truth as datasets on disk, and what is true of their events.

The cuts are fixed times instead of quantiles of the events, so that a world without one of its domains is cut at the same times.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from formats.errors import WorkFailed
from formats.events import EventSource
from training.cases import Cases
from training.dataset import Dataset, open_dataset
from training.generate import PERIOD, Histories, generate, last_items
from training.prepare import PrepareOptions, prepare
from training.truth import NONE, Floats, World, next_item_probabilities

# Events are uniform over the period: eight tenths train, one validates, one tests.
_TENTH: Final = (PERIOD[1] - PERIOD[0]) // 10
VALIDATION_FROM, TEST_FROM = (1_000_000 * (PERIOD[0] + tenths * _TENTH) for tenths in (8, 9))


@dataclass(frozen=True)
class KnownWorld:
    """A world and the dataset of its events; both number the domains alike."""

    world: World
    dataset: Dataset

    def probabilities(self, cases: Cases, domain: int) -> Floats:
        """The exact probability of every item of a domain, given that each case is of this domain.

        Args:
            cases: of the dataset.
            domain: 0-based.
        Returns:
            [cases, items of the domain], in the order of the dataset's items; rows sum to 1.
        """
        last = self._number[_last_items(cases)[cases.position]]
        exact = next_item_probabilities(self.world, domain, self._user[cases.user], last)
        items = slice(self.dataset.first_item(domain + 1), self.dataset.first_item(domain + 2))
        return exact[:, self._number[items]]

    @cached_property
    def _user(self) -> NDArray[np.int64]:
        """The world's number of each user."""
        return self.dataset.all_user_ids.str.slice(1).cast(int).to_numpy()

    @cached_property
    def _number(self) -> NDArray[np.int64]:
        """The world's number of each item within its domain, NONE for padding, [items + 1]."""
        return np.concatenate([[NONE], self.dataset.catalogue()["item_id"].str.slice(1).cast(int).to_numpy()])


def known_world(world: World, folder: Path) -> KnownWorld:
    """A world with the dataset of its events, which is made if it is not there yet.

    Args:
        world: what to draw; its domains are put into the order of their names, which is that of datasets.
        folder: where the dataset is kept.
    Raises:
        WorkFailed: so few events that an item never trains, and nothing can be compared with its probability.
    """
    world = replace(world, domains=tuple(sorted(world.domains, key=lambda domain: domain.name)))
    dataset = world_dataset(world, folder / "dataset")
    if dataset.items_per_domain != tuple(domain.items for domain in world.domains):
        raise WorkFailed(f"{dataset.path}: an item is in no training event: name more users")
    return KnownWorld(world, dataset)


def world_dataset(world: World, path: Path, without: str | None = None) -> Dataset:
    """The dataset of a world's events, made if it is not there yet.

    Args:
        world: what to draw.
        path: of the dataset.
        without: name of a domain whose events are left out.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        events = path.with_name(f".{path.name}.parquet")
        generate(world).table(world).sink_parquet(events)
        options = PrepareOptions(
            domains=tuple(domain.name for domain in world.domains if domain.name != without),
            repeats="keep",
            validation_from=VALIDATION_FROM,
            test_from=TEST_FROM,
            min_user_events=1,
        )
        prepare([EventSource(events)], path, options)
        events.unlink()
    return open_dataset(path)


def _last_items(cases: Cases) -> NDArray[np.int32]:
    """The item before each joined event, of the same user in the same domain; 0 where there is none."""
    user = np.repeat(np.arange(len(cases.user_offsets) - 1), np.diff(cases.user_offsets)).astype(np.int32)
    joined = Histories(user, cases.domain.astype(np.int32), cases.item_index, cases.timestamp)
    return np.maximum(last_items(joined), 0)
