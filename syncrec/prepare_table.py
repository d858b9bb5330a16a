"""What `syncrec prepare` prints: the table of read, kept and dropped, the split, the thresholds."""

from collections.abc import Iterable, Sequence

from training.manifest import PARTS, Manifest, Report
from training.prepare import Prepared


def describe_prepared(prepared: Prepared) -> str:
    """The whole text, without a line break at the end."""
    manifest = prepared.manifest
    lines = [*_rows_table(manifest.report), "", *_parts_table(manifest), ""]
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


def format_table(header: Sequence[str], rows: Iterable[Sequence[str | int]]) -> list[str]:
    """Lines of a table: the first column to the left, numbers to the right with separators."""
    text = [list(header)] + [[cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*text, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in text
    ]


def _rows_table(report: Report) -> list[str]:
    reasons = sorted({reason for row in report.rows for reason in row.dropped})
    rows: list[list[str | int]] = [
        [row.domain or "(unreadable)", row.read, row.kept, *(row.dropped.get(reason, 0) for reason in reasons)]
        for row in report.rows
    ]
    numbers = [[cell for cell in row if isinstance(cell, int)] for row in rows]
    rows.append(["all", *(sum(column) for column in zip(*numbers, strict=True))])
    return format_table(["domain", "read", "kept", *reasons], rows)


def _parts_table(manifest: Manifest) -> list[str]:
    header = ["part", "users", "new users", "events", "cold", *manifest.domains]
    rows: list[list[str | int]] = []
    for name in PARTS:
        part = manifest.parts[name]
        cold = sum(counts.cold for counts in part.domains.values())
        rows.append(
            [name, part.users, part.new_users, part.events, cold, *(part.domains[d].events for d in manifest.domains)]
        )
    items: list[str | int] = [
        "items",
        "",
        "",
        "",
        "",
        *(manifest.items_per_domain[domain] for domain in manifest.domains),
    ]
    return format_table(header, [*rows, items])


def _threshold_lines(report: Report) -> list[str]:
    if not report.threshold_rounds:
        return ["thresholds: nothing below"]
    return [
        f"thresholds, round {number}: {one.items:,} items ({one.item_events:,} events), "
        f"{one.users:,} users ({one.user_events:,} events) left training"
        for number, one in enumerate(report.threshold_rounds, 1)
    ]
