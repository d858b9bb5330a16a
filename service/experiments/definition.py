"""An experiment as its owner defines it, and which changes of it are allowed when.

draft     anything may change
running   nothing that decides who gets what, or what is measured; the share of traffic may only grow
stopped   nothing; it is never started again: that takes another key, or another salt on a later day
"""

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec

from service.errors import ChangeRefused, FieldError, InvalidRequest
from service.timestamps import seconds_of

BUCKETS = 10_000  # of a layer, and of an experiment's salt
MAX_TEXT = 10_000
MAX_OVERRIDES = 10_000
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

State = Literal["draft", "running", "stopped"]
Kind = Literal["ab", "interleaving"]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
Spans = tuple[tuple[int, int], ...]


class Blend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model's list with a share of another's, share from 0 to 1."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)]
    with_: Literal["popularity"] = msgspec.field(name="with", default="popularity")


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What answers in a variant: at most one of a bundle, popularity, a blend; none of them is the active model."""

    model_version: Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None = None
    popularity: bool = False
    blend: Blend | None = None


class Variant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One arm. weight: above 0, in proportion to the other arms' weights."""

    name: str
    weight: float = 1.0
    policy: Policy = Policy()


class Change(msgspec.Struct, frozen=True):
    """What was done to an experiment, and when (ISO 8601, UTC)."""

    at: str
    what: str


class Experiment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An experiment. The first variant is the control; the unit is the user.

    traffic: share of its layer's users, 0 to 1.
    salt: decides who gets which variant; made if missing.
    minimum_effect: relative, 0.05 is 5 %.
    planned_start, planned_end: ISO 8601.
    click_window_s: how long after a recommendation a click of it counts.
    k, domains: what requests are held to while it runs; None leaves them free.
    overrides: user id -> variant, for tests by hand; those users are not analysed.
    started_at, stopped_at, segments, changes, former_salts: kept by the service, whatever is given. segments: spans [first, end) of
    the layer's buckets; former_salts: of runs that have ended.
    """

    key: str
    variants: tuple[Variant, ...]
    hypothesis: Text = ""
    state: State = "draft"
    kind: Kind = "ab"
    layer: str = "default"
    traffic: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    salt: Annotated[str, msgspec.Meta(max_length=256)] = ""
    primary_metric: Literal["ctr"] = "ctr"
    guardrails: tuple[Text, ...] = ()
    minimum_effect: Annotated[float, msgspec.Meta(gt=0, le=10)] = 0.05
    planned_start: Text | None = None
    planned_end: Text | None = None
    click_window_s: Annotated[int, msgspec.Meta(ge=1, le=30 * 86_400)] = 86_400
    k: Annotated[int, msgspec.Meta(ge=1, le=100)] | None = None
    domains: tuple[Text, ...] | None = None
    overrides: dict[str, str] = {}
    started_at: str | None = None
    stopped_at: str | None = None
    segments: Spans = ()
    changes: tuple[Change, ...] = ()
    former_salts: tuple[str, ...] = ()

    @property
    def steers(self) -> bool:
        """Whether it says what answers; otherwise only the caller treats the arms differently."""
        return self.kind == "interleaving" or any(variant.policy != Policy() for variant in self.variants)


# What decides who gets what, and what is measured, with why each may not change while people are in the experiment.
_ASSIGNS = "users would change arms"
_MEASURES = "what is measured would not be what was planned"
LOCKED = {
    "variants": _ASSIGNS,
    "salt": _ASSIGNS,
    "layer": _ASSIGNS,
    "kind": _MEASURES,
    "primary_metric": _MEASURES,
    "click_window_s": _MEASURES,
    "k": _MEASURES,
    "domains": _MEASURES,
    "planned_start": "it has begun",
}
FREE = ("hypothesis", "guardrails", "minimum_effect", "planned_end", "overrides")


def check(experiment: Experiment) -> None:
    """Raises InvalidRequest that names every field that cannot be meant."""
    found = [FieldError(field, detail) for field, detail in _faults(experiment)]
    if found:
        raise InvalidRequest(found)


def changed(known: Experiment | None, wanted: Experiment, others: Iterable[Experiment], now: float) -> Experiment:
    """The experiment after a change.

    Args:
        known: as it is; None: there is none of this key.
        wanted: as it shall be; its `state` too, so that starting and stopping are changes like others.
        others: all other experiments.
        now: seconds since 1970.

    Raises:
        InvalidRequest: it cannot be meant.
        ChangeRefused: not in this state, or the layer has not that many buckets left.
    """
    check(wanted)
    at = _text_of(now)
    if known is not None and not wanted.salt:
        wanted = msgspec.structs.replace(wanted, salt=known.salt)
    is_renewed = (
        known is not None and known.state == "stopped" and wanted.salt != known.salt and wanted.state != "stopped"
    )
    if known is None or known.state == "draft" or is_renewed:
        return _drafted(known, wanted, others, at)
    if known.state == "stopped":
        if _differences(known, wanted, (*LOCKED, *FREE, "traffic", "state")):
            raise ChangeRefused(
                f"'{known.key}' is stopped and never started again, since its users know their arms: take another key, "
                "or give another salt and start on a later day"
            )
        return known
    return _changed_while_running(known, wanted, others, at)


def removable(known: Experiment) -> None:
    """Raises ChangeRefused if the definition may not be removed."""
    if known.state == "running":
        raise ChangeRefused(f"'{known.key}' is running: stop it first")


def buckets_of(experiment: Experiment) -> int:
    """How many of its layer's buckets its traffic is."""
    return round(experiment.traffic * BUCKETS)


def variant_ends(variants: Sequence[Variant]) -> list[int]:
    """For each variant the end of its buckets, which begin where those of the one before end; the last is `BUCKETS`."""
    total, sum_so_far, ends = sum(variant.weight for variant in variants), 0.0, []
    for variant in variants:
        sum_so_far += variant.weight
        ends.append(round(sum_so_far / total * BUCKETS))
    return ends


def _faults(experiment: Experiment) -> Iterable[tuple[str, str]]:
    name_rule = "must be 1 to 64 letters, digits or _ . - and begin with a letter or digit"
    for field, text in (("key", experiment.key), ("layer", experiment.layer)):
        if not NAME.fullmatch(text):
            yield field, name_rule
    names = [variant.name for variant in experiment.variants]
    if len(names) < 2:
        yield "variants", "an experiment compares at least two"
    if experiment.kind == "interleaving" and len(names) > 2:
        yield "variants", "interleaving compares two"
    weights_fit = True
    for place, variant in enumerate(experiment.variants):
        where = f"variants[{place}]"
        if not NAME.fullmatch(variant.name):
            yield f"{where}.name", name_rule
        if variant.name in names[:place]:
            yield f"{where}.name", f"'{variant.name}' is there twice"
        if not 0 < variant.weight < 1e9:
            weights_fit = False
            yield f"{where}.weight", "must be above 0 and below a billion"
        policy = variant.policy
        if (policy.model_version is not None) + policy.popularity + (policy.blend is not None) > 1:
            yield f"{where}.policy", "at most one of model_version, popularity and blend"
    if names and weights_fit:
        ends = variant_ends(experiment.variants)
        if 0 in [end - start for start, end in zip([0, *ends], ends, strict=False)]:
            yield "variants", f"a weight is less than 1 of {BUCKETS:,} of all"
    if len(experiment.overrides) > MAX_OVERRIDES:
        yield "overrides", f"more than {MAX_OVERRIDES:,}"
    for variant_name in sorted(set(experiment.overrides.values()) - set(names)):
        yield "overrides", f"no variant is called '{variant_name[:64]}'"
    for field in ("planned_start", "planned_end"):
        if (text := getattr(experiment, field)) is not None and _seconds(text) is None:
            yield field, "is no ISO 8601 time"
    start, end = _seconds(experiment.planned_start), _seconds(experiment.planned_end)
    if start is not None and end is not None and end <= start:
        yield "planned_end", "is not after planned_start"


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else seconds_of(text)
    except ValueError:
        return None


def _drafted(known: Experiment | None, wanted: Experiment, others: Iterable[Experiment], at: str) -> Experiment:
    if wanted.state == "stopped":
        raise ChangeRefused(f"'{wanted.key}' has not been started: remove it instead")
    if known is not None and wanted.salt in known.former_salts:
        raise ChangeRefused(f"'{wanted.key}' ran with this salt before, and its users know their arms: give another")
    draft = msgspec.structs.replace(
        wanted,
        salt=wanted.salt or secrets.token_hex(8),
        started_at=None,
        stopped_at=None if known is None else known.stopped_at,
        segments=(),
        changes=() if known is None else known.changes,
        former_salts=() if known is None else known.former_salts,
    )
    if wanted.state == "draft":
        return draft
    if draft.stopped_at is not None and at[:10] <= draft.stopped_at[:10]:
        raise ChangeRefused(f"'{wanted.key}' was stopped today, and its log is kept by day: start it tomorrow")
    others = list(others)
    _steers_alone(draft, others)
    segments = _grown((), draft, others)
    return msgspec.structs.replace(
        draft,
        started_at=at,
        stopped_at=None,
        segments=segments,
        changes=(*draft.changes, Change(at, f"started at {draft.traffic:.4g}")),
    )


def _changed_while_running(known: Experiment, wanted: Experiment, others: Iterable[Experiment], at: str) -> Experiment:
    if wanted.state == "draft":
        raise ChangeRefused(f"'{known.key}' is running: stop it; it cannot be a draft again")
    refused = [f"{field} ({LOCKED[field]})" for field in _differences(known, wanted, LOCKED)]
    if refused:
        raise ChangeRefused(f"'{known.key}' is running, so these may not change: {', '.join(refused)}")
    if wanted.traffic < known.traffic:
        raise ChangeRefused(
            f"'{known.key}' is running at traffic {known.traffic:.4g}, which may only grow: who is in would fall out"
        )
    what = [f"{field} changed" for field in _differences(known, wanted, FREE)]
    segments = known.segments
    if wanted.traffic > known.traffic:
        segments = _grown(segments, wanted, others)
        what.append(f"traffic {known.traffic:.4g} to {wanted.traffic:.4g}")
    if wanted.state == "stopped":
        segments = ()
        what.append("stopped")
    return msgspec.structs.replace(
        wanted,
        started_at=known.started_at,
        stopped_at=at if wanted.state == "stopped" else None,
        segments=segments,
        former_salts=(*known.former_salts, known.salt) if wanted.state == "stopped" else known.former_salts,
        changes=(*known.changes, *(Change(at, text) for text in what)),
    )


def _steers_alone(experiment: Experiment, others: Iterable[Experiment]) -> None:
    """Raises ChangeRefused if users would be in two experiments that both say what answers: only one of them could."""
    for other in others:
        if other.state == "running" and other.steers and experiment.steers and other.layer != experiment.layer:
            raise ChangeRefused(
                f"'{other.key}' of layer '{other.layer}' says what answers too: two such experiments share a layer, "
                "or they would share users"
            )


def _differences(known: Experiment, wanted: Experiment, fields: Iterable[str]) -> list[str]:
    return [field for field in fields if getattr(known, field) != getattr(wanted, field)]


def _grown(held: Spans, experiment: Experiment, others: Iterable[Experiment]) -> Spans:
    """What it holds, and as much more of its layer as its traffic needs: the lowest buckets that nobody has.

    Raises:
        ChangeRefused: there are not that many.
    """
    taken = bytearray(BUCKETS)
    for other in others:
        if other.layer == experiment.layer and other.key != experiment.key:
            _mark(taken, other.segments)
    own = bytearray(BUCKETS)
    _mark(own, held)
    missing = buckets_of(experiment) - sum(own)
    free = [bucket for bucket in range(BUCKETS) if not taken[bucket] and not own[bucket]]
    if missing > len(free):
        raise ChangeRefused(
            f"layer '{experiment.layer}' has {len(free) / BUCKETS:.2%} of its users left, and '{experiment.key}' needs "
            f"{missing / BUCKETS:.2%} more: stop another experiment of the layer, or take less traffic"
        )
    for bucket in free[: max(missing, 0)]:
        own[bucket] = 1
    return _spans(own)


def _mark(buckets: bytearray, spans: Spans) -> None:
    for first, end in spans:
        buckets[first:end] = b"\x01" * (end - first)


def _spans(marked: bytearray) -> Spans:
    return tuple(match.span() for match in re.finditer(rb"\x01+", marked))


def _text_of(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")


_decode = msgspec.json.Decoder(Experiment).decode


def read_experiment(raw: bytes) -> Experiment:
    """An experiment from JSON.

    Raises:
        InvalidRequest: it is none; says which field.
    """
    try:
        return _decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest([FieldError("", str(error))]) from None


def as_json(experiment: Experiment) -> bytes:
    """What `read_experiment` reads."""
    return msgspec.json.encode(experiment)


def running(by_key: Mapping[str, Experiment]) -> list[Experiment]:
    """Those that are running, by key."""
    return [by_key[key] for key in sorted(by_key) if by_key[key].state == "running"]
