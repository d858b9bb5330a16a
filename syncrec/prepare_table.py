"""What `syncrec prepare` prints: the table of read, kept and dropped, the split, the thresholds."""

from collections.abc import Sequence

from syncrec.console import table
from training.manifest import PARTS, Manifest, Report
from training.prepare import Prepared


def describe_prepared(prepared: Prepared) -> str:
    """The whole text, without a line break at the end."""
    manifest = prepared.manifest
    lines = [_rows_table(manifest.report), "", _parts_table(manifest), ""]
    lines += [f"{prepared.malformed} malformed rows{', the first:' if prepared.malformed else ''}"]
    lines += [f"  {example}" for example in prepared.examples]
    lines += _threshold_lines(manifest.report)
    lines.append(
        f"{manifest.report.tied_share:.1%} of the events share user and time with another: order among them by hash"
    )
    if manifest.split.kind == "temporal":
        lines.append(f"validation from {manifest.split.validation_from}, test from {manifest.split.test_from}")
    lines.append(f"fingerprint {manifest.fingerprint}")
    return "\n".join(lines)


def _rows_table(report: Report) -> str:
    reasons = sorted({reason for row in report.rows for reason in row.dropped})
    counts = [[row.read, row.kept, *(row.dropped.get(reason, 0) for reason in reasons)] for row in report.rows]
    names = [row.domain or "(unreadable)" for row in report.rows]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    rows = [[name, *_figures(row)] for name, row in zip([*names, "all"], [*counts, sums], strict=True)]
    return table(["domain", "read", "kept", *reasons], rows)


def _parts_table(manifest: Manifest) -> str:
    rows = []
    for name in PARTS:
        part = manifest.parts[name]
        cold = sum(counts.cold for counts in part.domains.values())
        events = [part.domains[domain].events for domain in manifest.domains]
        rows.append([name, *_figures([part.users, part.new_users, part.events, cold, *events])])
    rows.append(["items", "", "", "", "", *_figures([manifest.items_per_domain[name] for name in manifest.domains])])
    return table(["part", "users", "new users", "events", "cold", *manifest.domains], rows)


def _figures(numbers: Sequence[int]) -> list[str]:
    return [f"{number:,}" for number in numbers]


def _threshold_lines(report: Report) -> list[str]:
    if not report.threshold_rounds:
        return ["thresholds: nothing below"]
    return [
        f"thresholds, round {number}: {one.items:,} items ({one.item_events:,} events), "
        f"{one.users:,} users ({one.user_events:,} events) left training"
        for number, one in enumerate(report.threshold_rounds, 1)
    ]
