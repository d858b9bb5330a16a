"""Who is in which experiment, and in which of its variants: decided by hashes alone, the same in every process and version.

A user has one bucket of 10,000 in each layer, by the layer's name: the experiment that holds this bucket has the user, so that experiments
of one layer never share users. In each experiment the user has a second bucket, by its salt, that decides the variant: it does not
depend on how much traffic the experiment has, so whoever is in keeps the arm when it grows.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

from service.experiments.definition import BUCKETS, Experiment, running, variant_ends

Reason = Literal["SPLIT", "TARGETING_MATCH", "DISABLED", "ERROR"]


@dataclass(frozen=True, slots=True)
class Assignment:
    """A user's place in an experiment.

    variant: None where the user is not in it.
    reason: SPLIT, TARGETING_MATCH (an override), DISABLED (it is not running, or the user is not in its traffic), ERROR (there is no such
    experiment, or its definition cannot be read).
    """

    experiment: str
    variant: str | None
    reason: Reason


class _Salted:
    """Buckets by one salt. kind: keeps a layer apart from an experiment whose salt is the layer's name."""

    __slots__ = ("_begun",)

    def __init__(self, kind: str, salt: str) -> None:
        self._begun = blake2b(f"{kind}\0{salt}\0".encode("utf-8", "surrogatepass"), digest_size=8)

    def bucket(self, user: bytes) -> int:
        digest = self._begun.copy()
        digest.update(user)
        return int.from_bytes(digest.digest(), "big") % BUCKETS


class _Arms:
    """One running experiment: its answers, made once."""

    __slots__ = ("_by_bucket", "_salted", "key", "overrides")

    def __init__(self, experiment: Experiment) -> None:
        self.key = experiment.key
        self._salted = _Salted("experiment", experiment.salt)
        ends = variant_ends(experiment.variants)
        split = [Assignment(self.key, variant.name, "SPLIT") for variant in experiment.variants]
        self._by_bucket = [split[bisect_right(ends, bucket)] for bucket in range(BUCKETS)]
        self.overrides = {
            user_id: Assignment(self.key, variant, "TARGETING_MATCH")
            for user_id, variant in experiment.overrides.items()
        }

    def of(self, user: bytes) -> Assignment:
        return self._by_bucket[self._salted.bucket(user)]


class _Layer:
    """The running experiments of one layer."""

    __slots__ = ("_by_bucket", "_overrides", "_salted")

    def __init__(self, name: str, experiments: Iterable[Experiment]) -> None:
        self._salted = _Salted("layer", name)
        self._by_bucket: list[_Arms | None] = [None] * BUCKETS
        self._overrides: dict[str, Assignment] = {}
        for experiment in experiments:
            arms = _Arms(experiment)
            for first, end in experiment.segments:
                self._by_bucket[first:end] = [arms] * (end - first)
            self._overrides = arms.overrides | self._overrides

    def of(self, user_id: str, user: bytes) -> Assignment | None:
        if self._overrides and (override := self._overrides.get(user_id)) is not None:
            return override
        arms = self._by_bucket[self._salted.bucket(user)]
        return None if arms is None else arms.of(user)


class Assigner:
    """Assigns by definitions that do not change: make another one when they do."""

    def __init__(self, by_key: Mapping[str, Experiment], broken: Iterable[str] = ()) -> None:
        """Args: definitions by key; keys of those that cannot be read."""
        self._states = {key: experiment.state for key, experiment in by_key.items()}
        self._layer_of = {key: experiment.layer for key, experiment in by_key.items()}
        self._broken = frozenset(broken)
        in_layer: dict[str, list[Experiment]] = {}
        for experiment in running(by_key):
            in_layer.setdefault(experiment.layer, []).append(experiment)
        self._layers = {name: _Layer(name, in_layer[name]) for name in sorted(in_layer)}

    def assignments(self, user_id: str) -> list[Assignment]:
        """The experiments that a user is in, at most one of each layer, by the layers' names."""
        user = user_id.encode("utf-8", "surrogatepass")
        return [found for layer in self._layers.values() if (found := layer.of(user_id, user)) is not None]

    def assignment(self, key: str, user_id: str) -> Assignment:
        """A user's place in one experiment, and why."""
        if key in self._broken or key not in self._states:
            return Assignment(key, None, "ERROR")
        if self._states[key] == "running":
            found = self._layers[self._layer_of[key]].of(user_id, user_id.encode("utf-8", "surrogatepass"))
            if found is not None and found.experiment == key:
                return found
        return Assignment(key, None, "DISABLED")


NOBODY = Assigner({})
