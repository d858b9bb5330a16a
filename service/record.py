"""Recorder: what was served, and what clients tell, as rows of the event log."""

from msgspec.structs import replace

from service.events.served import Served, ServedList
from service.events.stream import EventLog
from service.experiments.serving import Placed
from service.merge import item_ids
from service.recommendation import Recommendation


class Recorder:
    """Puts rows down; never waits."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def served(self, answer: Recommendation, latency_s: float) -> None:
        """One row, or one for each experiment that the user is in."""
        teams = answer.teams or (None,) * len(answer.lists)
        lists = [
            ServedList(domain, item_ids(answer.catalog, found), team)
            for (domain, found), team in zip(answer.lists, teams, strict=True)
        ]
        self._put(
            answer.placed,
            Served(
                recommendation_id=answer.recommendation_id,
                user_id=answer.user_id,
                source=answer.source,
                model_version=answer.catalog.model_version,
                latency_ms=1000 * latency_s,
                interleaved="team_draft" if answer.teams else None,
                lists=lists,
            ),
        )

    def refused(self, recommendation_id: str, user_id: str, placed: Placed, latency_s: float) -> None:
        """A request of a user in an experiment that got no answer."""
        if placed.assignments:
            row = Served(
                recommendation_id=recommendation_id,
                user_id=user_id,
                source="",
                model_version="",
                latency_ms=1000 * latency_s,
                error=True,
                lists=[],
            )
            self._put(placed, row)

    def _put(self, placed: Placed, row: Served) -> None:
        if not placed.assignments:
            self._log.put(row)
        for one in placed.assignments:
            self._log.put(replace(row, experiment=one.experiment, variant=one.variant, reason=one.reason))
