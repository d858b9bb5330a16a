"""What experiments mean for one request: which arms its user is in, and what answers."""

from dataclasses import dataclass

from service.experiments.assignment import Assignment
from service.experiments.definition import Experiment, Variant
from service.experiments.store import Experiments

ACTIVE = Variant("active")


@dataclass(frozen=True, slots=True)
class Placed:
    """The arms of one request's user.

    assignments: all of them, at most one of each layer, by the layers' names.
    deciding: the one whose variant says what answers; None: the active model does.
    variants: whose policies answer; two, control's first, where lists are interleaved.
    """

    assignments: tuple[Assignment, ...] = ()
    deciding: Assignment | None = None
    variants: tuple[Variant, ...] = (ACTIVE,)


NOT_PLACED = Placed()


def placement(experiments: Experiments, user_id: str, k: int, domains: list[str] | None) -> Placed:
    """The arms of a request's user.

    A request for other lists than an experiment is held to is served outside of it, whatever the arm.
    """
    assigned = [
        one
        for one in experiments.assigner.assignments(user_id)
        if _fits(experiments.by_key[one.experiment], k, domains)
    ]
    if not assigned:
        return NOT_PLACED
    for one in assigned:
        experiment = experiments.by_key[one.experiment]
        if experiment.steers:
            shown = experiment.variants
            if experiment.kind == "ab":
                shown = tuple(variant for variant in shown if variant.name == one.variant)
            return Placed(tuple(assigned), one, shown)
    return Placed(tuple(assigned))


def versions_of(experiments: Experiments) -> set[str]:
    """The bundles that running experiments answer with."""
    return {
        variant.policy.model_version
        for experiment in experiments.by_key.values()
        if experiment.state == "running"
        for variant in experiment.variants
        if variant.policy.model_version is not None
    }


def _fits(experiment: Experiment, k: int, domains: list[str] | None) -> bool:
    if experiment.k is not None and experiment.k != k:
        return False
    return experiment.domains is None or domains is None or set(domains) == set(experiment.domains)
