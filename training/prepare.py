"""Raw events -> encoded dataset, with the table of what was read, kept, dropped and why.

    read, with a reason for every bad row -> choose domains and event kinds -> encode -> one order -> drop repeats
    -> split by time -> thresholds and catalogue from training alone -> write

Nothing after the cut reaches training: every step from the split on looks at training events only, and the steps before
it (order, repeats) let earlier events decide about later ones, never the other way round.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from formats.errors import WorkFailed, WrongUse
from formats.event_files import read_event_files
from formats.event_times import format_time
from formats.events import EventRows, EventSource
from formats.folders import new_folder
from training.catalogue import Catalogue, describe, make_catalogue, read_item_table
from training.dataset_writer import DROPPED, SplitEvents, write_dataset
from training.encoding import CodedEvents, encode
from training.manifest import PARTS, Manifest, Report, Row, Split, ThresholdRound
from training.ordering import first_of_repeats, in_order, tied_share
from training.splits import Period, SplitKind, leave_one_out_periods, quantile_cuts, temporal_periods
from training.tally import Tally
from training.thresholds import Fate, Round, apply_thresholds

_TRAIN, _CONTEXT, _VALIDATION, _TEST = range(len(PARTS))


@dataclass(frozen=True)
class PrepareOptions:
    """What `prepare` is asked to do.

    columns: standard name -> the files' name, where they differ.
    domains: the known ones; None knows all.
    events: the kinds that count.
    validation_from, test_from: microseconds UTC, for the temporal split; None takes quantiles of the event times.
    min_item_events, min_user_events: thresholds on training events.
    repeats: `drop` keeps a user's first event of an item, `keep` drops exact repeats (same time) only.
    max_bad: share of malformed rows up to which the work goes on.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    domains: tuple[str, ...] | None = None
    events: tuple[str, ...] = ("interaction",)
    split: SplitKind = "temporal"
    validation_from: int | None = None
    test_from: int | None = None
    min_item_events: int = 1
    min_user_events: int = 2
    repeats: Literal["drop", "keep"] = "drop"
    max_bad: float = 0.001

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            WrongUse: names the option.
        """
        if self.min_item_events < 1 or self.min_user_events < 1:
            raise WrongUse("--min-item-events and --min-user-events are at least 1")
        cuts = (self.validation_from, self.test_from)
        if self.split != "temporal" and cuts != (None, None):
            raise WrongUse("--validation-from and --test-from belong to --split temporal")
        if (cuts[0] is None) != (cuts[1] is None):
            raise WrongUse("--validation-from and --test-from go together")
        if cuts[0] is not None and cuts[1] is not None and cuts[0] > cuts[1]:
            raise WrongUse("--validation-from is later than --test-from")


@dataclass(frozen=True)
class Prepared:
    """What came out: the manifest as written, and the first malformed rows as `file:line: reason`."""

    manifest: Manifest
    malformed: int
    examples: tuple[str, ...]


def prepare(
    sources: Sequence[EventSource],
    out: Path,
    options: PrepareOptions,
    item_table: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Prepared:
    """Make the dataset `out` of all sources; it appears whole or not at all.

    Raises:
        WrongUse: `out` exists.
        WorkFailed: a source or the item table is damaged, too many rows are malformed, or nothing is left to train on.
    """
    if out.exists():
        raise WrongUse(f"{out} exists already: name another folder or remove it first")
    tally = Tally()

    def counted(found: EventRows) -> pl.DataFrame:
        tally.add_read(found.good["domain"])
        tally.add_read(found.bad["domain"])
        tally.add_problems(found.bad["domain"], found.bad["problem"])
        return found.good

    rows = read_event_files(sources, options.columns, options.max_bad, counted, progress)
    progress("sorting")
    malformed, examples = rows.malformed, rows.examples
    events = in_order(encode(_choose(rows.kept, options, tally)))
    del rows
    events = _without_repeats(events, options, tally)
    tied = tied_share(events)
    split, periods = _split(events, options)
    kept, rounds = _assign_parts(events, periods, options, tally)
    if item_table is not None:
        kept = _described(kept, item_table)
    report = Report(
        rows=tuple(
            Row(domain=domain, read=read, kept=stays, dropped=dropped) for domain, read, stays, dropped in tally.rows()
        ),
        threshold_rounds=tuple(ThresholdRound(**asdict(one)) for one in rounds),
        tied_share=round(tied, 6),
    )
    progress("writing")
    with new_folder(out) as folder:
        manifest = write_dataset(folder, kept, split, _recorded(options), report)
    return Prepared(manifest, malformed, examples)


def _choose(rows: pl.DataFrame, options: PrepareOptions, tally: Tally) -> pl.DataFrame:
    """The rows of known domains and of the event kinds that count."""
    if options.domains is not None:
        known = rows["domain"].cast(pl.String).is_in(options.domains)
        tally.add_dropped("unknown domain", rows["domain"].filter(~known))
        rows = rows.filter(known)
    counts = rows["event"].is_in(options.events)
    if not counts.all():
        tally.add_dropped("event not counted", rows["domain"].filter(~counts))
        rows = rows.filter(counts)
    if rows.is_empty():
        raise WorkFailed(f"no event is left: none of the kinds {', '.join(options.events)} in a known domain")
    return rows.drop("event")


def _without_repeats(events: CodedEvents, options: PrepareOptions, tally: Tally) -> CodedEvents:
    first = first_of_repeats(events, same_time_only=options.repeats == "keep")
    tally.add_dropped_codes("repeat", events.item_domain[events.item[~first]], events.domains)
    return events.take(first)


def _split(events: CodedEvents, options: PrepareOptions) -> tuple[Split, NDArray[np.uint8]]:
    """How the events are split, and the Period of each, [events]."""
    if options.split == "leave-one-out":
        return Split(kind=options.split, validation_from=None, test_from=None), leave_one_out_periods(events.user)
    if options.validation_from is None or options.test_from is None:
        validation_from, test_from = quantile_cuts(events.timestamp)
    else:
        validation_from, test_from = options.validation_from, options.test_from
    split = Split(kind=options.split, validation_from=format_time(validation_from), test_from=format_time(test_from))
    return split, temporal_periods(events.timestamp, validation_from, test_from)


def _assign_parts(
    events: CodedEvents, periods: NDArray[np.uint8], options: PrepareOptions, tally: Tally
) -> tuple[SplitEvents, list[Round]]:
    """Decide which part keeps each event; training alone decides which items and domains there are."""
    before = np.flatnonzero(periods == Period.BEFORE)
    fate, rounds = apply_thresholds(
        events.user[before], events.item[before], options.min_item_events, options.min_user_events
    )
    trains = before[fate == Fate.KEPT]
    if not len(trains):
        raise WorkFailed(
            "no training events are left: all are after the cut, or of items and users below the thresholds"
        )
    catalogue = make_catalogue(events, np.bincount(events.item[trains], minlength=len(events.item_ids)))
    part = np.full(len(events), DROPPED, dtype=np.uint8)
    part[trains] = _TRAIN
    known_domain = catalogue.domain_number[events.domain] > 0
    for period, place in ((Period.VALIDATION, _VALIDATION), (Period.TEST, _TEST)):
        part[(periods == period) & known_domain] = place
    lost_users = before[fate == Fate.USER]
    part[lost_users[_comes_back(events, part, catalogue, lost_users)]] = _CONTEXT
    _count_drops(events, part, before, fate, tally)
    return SplitEvents(events, part, catalogue), rounds


def _comes_back(
    events: CodedEvents, part: NDArray[np.uint8], catalogue: Catalogue, rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which of these events belong to the history of a later case: known item, and a user with later events."""
    later = np.zeros(len(events.user_ids), dtype=bool)
    later[events.user[(part == _VALIDATION) | (part == _TEST)]] = True
    return later[events.user[rows]] & (catalogue.item_index[events.item[rows]] > 0)


def _count_drops(
    events: CodedEvents, part: NDArray[np.uint8], before: NDArray[np.int64], fate: NDArray[np.uint8], tally: Tally
) -> None:
    dropped = part == DROPPED
    domain = events.domain
    lost_items, lost_users = before[fate == Fate.ITEM], before[fate == Fate.USER]
    tally.add_dropped_codes("item below threshold", domain[lost_items], events.domains)
    tally.add_dropped_codes("user below threshold", domain[lost_users[dropped[lost_users]]], events.domains)
    dropped[before] = False
    tally.add_dropped_codes("domain without training items", domain[dropped], events.domains)


def _described(kept: SplitEvents, item_table: Path) -> SplitEvents:
    table = describe(kept.catalogue.table, read_item_table(item_table))
    return replace(kept, catalogue=replace(kept.catalogue, table=table))


def _recorded(options: PrepareOptions) -> dict[str, Any]:
    """The options as the manifest keeps them; the split has its own place there."""
    recorded = asdict(options)
    for name in ("columns", "split", "validation_from", "test_from"):
        del recorded[name]
    return recorded
