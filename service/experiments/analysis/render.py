"""A report as JSON and as Markdown: the same figures and the same sentences."""

from collections.abc import Iterable, Sequence

import msgspec

from service.experiments.analysis import wording
from service.experiments.analysis.ratio import Effect
from service.experiments.analysis.report import Comparison, Report

Row = Sequence[str]


def as_json(report: Report) -> bytes:
    """Every figure, the `sentence`, and each finding with its `text`; the same report gives the same bytes."""
    content = msgspec.to_builtins(report)
    content["sentence"] = wording.sentence(report)
    for found, finding in zip(content["findings"], report.findings, strict=True):
        found["text"] = wording.finding(finding)
    for found, comparison in zip(content["comparisons"], report.comparisons, strict=True):
        found["advice"] = wording.advice(comparison.action)
    return msgspec.json.encode(content, order="deterministic")


def as_markdown(report: Report) -> str:
    """For people."""
    parts = [
        f"# {report.key}",
        report.hypothesis,
        f"**{wording.sentence(report)}**",
        wording.frame(report),
        _section("Warnings", [f"- {wording.SEVERITIES[f.severity]}: {wording.finding(f)}" for f in report.findings]),
        _section(
            "Arms",
            _table(
                ("arm", "users", "requests", "impressions", "clicks", "click-through"),
                [
                    (
                        arm.variant,
                        f"{arm.users:,}",
                        f"{arm.requests:,}",
                        f"{arm.impressions:,}",
                        f"{arm.clicks:,}",
                        wording.percent(arm.clicks / arm.impressions if arm.impressions else None, 2),
                    )
                    for arm in report.arms
                ],
            ),
        ),
        *(_comparison(comparison) for comparison in report.comparisons),
        *_ranks(report),
        _latency(report),
        _lists(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _comparison(comparison: Comparison) -> str:
    rows = [("click-through", comparison.ctr)]
    if comparison.ctr_adjusted is not None:
        cut = wording.percent(comparison.variance_cut, 0)
        rows.append((f"click-through with CUPED (variance −{cut})", comparison.ctr_adjusted))
    others = (comparison.clicks_per_request, comparison.impressions_per_user, *comparison.guardrails)
    rows += [(wording.METRICS[effect.metric], effect) for effect in others]
    figures = _table(("metric", "control", comparison.variant, "lift (interval)", "p"), [_effect(*row) for row in rows])
    by_domain = _table(
        ("domain", "control", comparison.variant, "lift (interval)", "p after Holm", "offline NDCG lift"),
        [
            (
                domain.domain,
                wording.percent(domain.effect.control, 2),
                wording.percent(domain.effect.treatment, 2),
                wording.lift(domain.effect),
                _p(domain.p_holm),
                wording.percent(domain.offline_lift),
            )
            for domain in comparison.domains
        ],
    )
    days = comparison.trend.days if comparison.trend else ()
    by_day = _table(
        ("day since exposure", "lift", "95 %"),
        [
            (
                str(day.day),
                wording.percent(day.lift),
                f"{wording.percent(day.interval.lower)} to {wording.percent(day.interval.upper)}",
            )
            for day in days
        ],
    )
    return _section(f"{comparison.variant} against the control", [*figures, "", *by_domain, "", *by_day]).rstrip()


def _ranks(report: Report) -> Iterable[str]:
    for domain, ranks in report.ranks.items():
        names = list(ranks.ctr)
        rows = [
            (str(rank), *(wording.percent(ctr, 2) for ctr in of_rank))
            for rank, of_rank in enumerate(zip(*ranks.ctr.values(), strict=True), 1)
        ]
        rows.append(("all, standardised", *(wording.percent(ranks.standardised[name], 2) for name in names)))
        yield _section(f"Click-through by rank: {domain}", _table(("rank", *names), rows))


def _latency(report: Report) -> str:
    rows = [
        (
            name,
            f"p{100 * quantile.share:.0f}",
            f"{quantile.value:.1f}",
            f"{quantile.interval.lower:.1f} to {quantile.interval.upper:.1f}",
        )
        for name, quantiles in report.latency.items()
        for quantile in quantiles
    ]
    return _section("Latency", _table(("arm", "", "ms", "95 %"), rows))


def _lists(report: Report) -> str:
    if report.lists is None:
        return ""
    head = ("arm", "catalogue shown", "effective items", f"of the control's top {report.lists.k}")
    rows = [
        (
            name,
            wording.percent(arm.coverage),
            f"{arm.effective_items:,.1f}",
            wording.percent(report.lists.overlap.get(name), 0),
        )
        for name, arm in report.lists.arms.items()
    ]
    return _section("What the arms show", _table(head, rows))


def _effect(name: str, effect: Effect) -> Row:
    values = [wording.MISSING if value is None else f"{value:.4g}" for value in (effect.control, effect.treatment)]
    return (name, *values, wording.lift(effect), _p(effect.p))


def _p(p: float | None) -> str:
    return wording.MISSING if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _section(title: str, lines: Sequence[str]) -> str:
    """Nothing, if there is nothing in it."""
    return "\n".join([f"## {title}", "", *lines]) if any(lines) else ""


def _table(head: Row, rows: Sequence[Row]) -> list[str]:
    """Lines of a table; none without rows."""
    if not rows:
        return []
    cells = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
