"""A network of its own for every domain: no parameter, no event and no choice of an epoch is shared."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from training.baselines.next_item import NextItemObjective
from training.batches import Batch
from training.cases import Cases
from training.objective import Objective, StepLosses
from training.processes import Processes
from training.ranking import Catalogue, Scorer


class PerDomainObjective(Objective):
    """The networks of all domains side by side; `training.baselines.per_domain_training` trains them one after the other."""

    def __init__(self, parts: list[NextItemObjective]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, batch: Batch, processes: Processes) -> StepLosses:  # noqa: ARG002 (see below)
        """No batch is for all of them.

        Raises:
            TypeError: always.
        """
        raise TypeError("each domain is trained on batches of its own")

    def scorers(self, catalogue: Catalogue) -> dict[str, Scorer]:
        """Each domain is ranked by its own network, which reads the newest events of this domain, however old.

        A user without such an event is a new one here: popularity answers, as it does for new users everywhere.
        """
        scorers = [
            part.scorers(_own(catalogue, domain))["cross"]
            for domain, part in enumerate(self.parts)
            if isinstance(part, NextItemObjective)
        ]

        def score(cases: Cases, domain: int) -> NDArray[np.float32]:
            seen = _seen_by(cases, catalogue.columns(domain))
            known = np.flatnonzero([history.any() for history in seen.histories()])
            scores = catalogue.popular(cases, domain)
            if len(known):
                scores[known] = scorers[domain](seen.take(known), 0)
            return scores

        return {"single": score}

    def per_domain(self) -> dict[str, list[float]]:
        """Nothing: domains have no state."""
        return {}


def _own(catalogue: Catalogue, domain: int) -> Catalogue:
    columns = catalogue.columns(domain)
    popularity = np.concatenate([catalogue.popularity[:1], catalogue.popularity[columns]])
    return Catalogue((catalogue.items_per_domain[domain],), popularity)


def _seen_by(cases: Cases, columns: slice) -> Cases:
    """The cases as the network of a domain sees them: items numbered from 1, all others unknown."""
    own = (cases.item_index >= columns.start) & (cases.item_index < columns.stop)
    return replace(cases, item_index=np.where(own, cases.item_index - (columns.start - 1), 0))
