"""A report as a whole, of simulated experiments, and every sentence it can say."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import get_args

import numpy as np
import pytest

from service.experiments.analysis import warnings as w
from service.experiments.analysis import wording
from service.experiments.analysis.guardrails import GUARDRAILS
from service.experiments.analysis.novelty import columns
from service.experiments.analysis.off_policy import snips
from service.experiments.analysis.plan import Plan
from service.experiments.analysis.ranks import RankCounts
from service.experiments.analysis.ratio import CTR, Effect, Interval, adjusted, compare
from service.experiments.analysis.render import as_json, as_markdown
from service.experiments.analysis.report import Action, Observed, Subject, action_of, make_report
from service.experiments.analysis.sequential import Look, daily_look, nominal_levels
from service.experiments.analysis.sums import Sums
from service.experiments.analysis.users import Users
from tests.service.experiments.analysis.simulated import MANY_DIFFERENT, before_and_during

START, END = datetime(2026, 11, 19, tzinfo=UTC), datetime(2026, 12, 3, tzinfo=UTC)


def subject(days=9, variants=("A", "B"), planned_end=END):
    return Subject(
        "new-ranker",
        "B is better.",
        variants,
        dict.fromkeys(variants, 1.0),
        0.05,
        START,
        planned_end,
        START + timedelta(days=days),
    )


def users(lifts, seed=0, each=2000, share_new=0.3):
    """One arm for each lift, A, B, C, of users who differ a lot."""
    rng = np.random.default_rng(seed)
    arms = [before_and_during(MANY_DIFFERENT, each, lift, rng, share_new) for lift in lifts]
    sizes = [len(arm["clicks"]) for arm in arms]
    joined = {name: np.concatenate([arm[name] for arm in arms]) for name in arms[0]}
    guardrails = {metric.numerator: np.zeros(sum(sizes)) for metric in GUARDRAILS}
    return Users(tuple("ABC"[: len(lifts)]), np.repeat(np.arange(len(lifts)), sizes), joined | guardrails)


def report_of(lifts, days=9, **more):
    seen = users(lifts)
    return make_report(subject(days, seen.variants), Observed(seen, **more))


def test_the_figures_are_those_of_the_parts_at_the_level_of_the_look():
    seen = users([0, 0.4])
    report = make_report(subject(), Observed(seen))
    a, b = seen.sums().values()
    level = nominal_levels([day / 14 for day in range(1, 10)])[-1]
    (comparison,) = report.comparisons
    assert report.look.level == pytest.approx(level)
    assert comparison.ctr == compare(a, b, CTR, report.look.level)
    assert comparison.decisive == comparison.ctr_adjusted == adjusted(a, b, CTR, report.look.level)
    assert comparison.variance_cut > 0.1
    assert [(arm.variant, arm.users, arm.clicks) for arm in report.arms] == [
        (name, sums.n, sums.total("clicks")) for name, sums in (("A", a), ("B", b))
    ]
    assert comparison.action == "ship"
    assert report.findings == ()


def test_without_a_past_the_plain_figure_decides():
    seen = users([0, 0.4], share_new=1)
    (comparison,) = make_report(subject(), Observed(seen)).comparisons
    assert (comparison.ctr_adjusted, comparison.variance_cut) == (None, None)
    assert comparison.decisive == comparison.ctr


def test_two_treatments_share_the_error():
    report = report_of([0, 0, 0.4])
    assert [comparison.variant for comparison in report.comparisons] == ["B", "C"]
    assert report.look.level == pytest.approx(nominal_levels([day / 14 for day in range(1, 10)], 0.025)[-1])
    assert [comparison.action for comparison in report.comparisons] == ["wait", "ship"]


def test_the_sentence():
    report = report_of([0, 0.4])
    effect = report.comparisons[0].decisive
    low, high = (f"{100 * bound:.1f}" for bound in (effect.relative_interval.lower, effect.relative_interval.upper))
    assert wording.sentence(report) == (
        f"B raised click-through by {100 * effect.relative:.1f} % ({low} to {high}); "
        "planned end 3 Dec, look 9 of 14: ship it."
    )


def effect(relative, p, level=0.01, status="measured"):
    half = 0.04
    interval = Interval(relative - half, relative + half)
    return Effect(
        "ctr", (900, 900), 0.05, 0.05 * (1 + relative), 0.05 * relative, relative, interval, interval, p, level, status
    )


@pytest.mark.parametrize(
    ("day", "relative", "p", "action", "text"),
    [
        (9, 0.061, 0.02, "wait", "Click-through of B is 6.1 % (2.1 to 10.1) above A's, which may be chance; planned end 3 Dec, look 9 of 14: do not stop yet."),
        (9, 0.061, 1e-5, "ship", "B raised click-through by 6.1 % (2.1 to 10.1); planned end 3 Dec, look 9 of 14: ship it."),
        (6, 0.061, 1e-9, "wait", "B raised click-through by 6.1 % (2.1 to 10.1); planned end 3 Dec, look 6 of 14: do not stop yet."),
        (6, -0.061, 1e-9, "roll_back", "B lowered click-through by 6.1 % (2.1 to 10.1); planned end 3 Dec, look 6 of 14: roll it back."),
        (9, -0.01, 0.5, "wait", "Click-through of B is 1.0 % (−3.0 to 5.0) below A's, which may be chance; planned end 3 Dec, look 9 of 14: do not stop yet."),
        (14, 0.01, 0.5, "no_difference", "Click-through of B is 1.0 % (−3.0 to 5.0) above A's, which may be chance; planned end 3 Dec reached: no difference was found; keep what is simpler."),
        (20, 0.061, 1e-5, "ship", "B raised click-through by 6.1 % (2.1 to 10.1); planned end 3 Dec reached: ship it."),
    ],
)  # fmt: skip
def test_what_to_do_and_how_it_is_said(day, relative, p, action, text):
    report = report_of([0, 0])
    look = daily_look(day, 14)
    decisive = effect(relative, p, look.level)
    assert action_of(decisive, look, trusted=True) == action
    comparison = replace(report.comparisons[0], decisive=decisive, action=action)
    assert wording.sentence(replace(report, look=look, comparisons=(comparison,))) == text
    assert action_of(decisive, look, trusted=False) == "not_trusted"


def test_few_users_and_nothing_to_compare():
    few = make_report(subject(), Observed(users([0, 5], each=300)))
    assert few.comparisons[0].action == "too_few_users"
    a, b = few.comparisons[0].decisive.users
    assert wording.sentence(few) == (
        f"B has {b} users and A {a}; planned end 3 Dec, look 9 of 14: too few users to say anything; do not stop yet."
    )
    nobody = make_report(subject(), Observed(users([0, 0], each=0)))
    assert nobody.comparisons[0].action == "too_few_users"
    seen = users([0, 0])
    unclicked = Users(seen.variants, seen.variant, dict(seen.columns) | {"clicks": np.zeros(len(seen.variant))})
    nothing = make_report(subject(), Observed(unclicked))
    assert "B cannot be compared with A" in wording.sentence(nothing)
    assert as_markdown(nothing)
    assert json.loads(as_json(nobody))["comparisons"][0]["decisive"]["control"] is None


def test_a_test_without_an_end_is_looked_at_with_a_confidence_sequence():
    report = make_report(subject(30, planned_end=None), Observed(users([0, 0.4])))
    assert report.look.planned is None
    assert "; no planned end, day 30: ship it." in wording.sentence(report)
    assert report.look.level < 0.05 / 5


def test_before_the_first_day_is_over_nothing_is_decided():
    report = report_of([0, 0.4], days=0.5)
    assert report.look.number == 0
    assert report.comparisons[0].action == "wait"
    # A test of one day would otherwise be at its end.
    short = make_report(replace(subject(0.5), planned_end=START + timedelta(days=1)), Observed(users([0, 0.4])))
    assert short.comparisons[0].action == "wait"


def test_figures_that_cannot_be_trusted_decide_nothing():
    lost = w.ServedNotLogged(severity="invalid", variant="B", day=date(2026, 11, 25), served=100, logged=60)
    note = w.Duplicates(severity="note", variant="A", rows=10, duplicates=1)
    report = report_of([0, 0.4], findings=(note, lost))
    assert report.comparisons[0].action == "not_trusted"
    assert report.findings == (lost, note)  # worst first
    assert "explain the warnings first" in wording.sentence(report)
    assert report_of([0, 0.4], findings=(note,)).comparisons[0].action == "ship"


def test_what_the_users_show_by_themselves_is_found():
    seen = users([0, 0.0])
    in_b = seen.variant == 1
    faulty = Users(
        seen.variants,
        seen.variant,
        dict(seen.columns)
        | {
            "impressions": seen.columns["impressions"] * np.where(in_b, 2, 1),
            "pre_clicks": seen.columns["pre_clicks"] * np.where(in_b, 2, 1),
            "errors": seen.columns["requests"] * in_b * (np.arange(len(in_b)) % 3 == 0),
        },
    )
    kept = np.ones(len(in_b), dtype=bool)
    kept[np.flatnonzero(in_b)[:500]] = False
    faulty = Users(
        faulty.variants, faulty.variant[kept], {name: values[kept] for name, values in faulty.columns.items()}
    )
    findings = make_report(subject(), Observed(faulty)).findings
    assert [type(finding) for finding in findings] == [w.SampleRatio, w.Imbalance, w.UnequalLists, w.GuardrailWorse]


def test_domains_are_adjusted_by_holm_and_stand_beside_what_offline_said():
    domains = {
        "Books": users([0, 0.4], seed=1),
        "Toys": users([0, 0], seed=2),
        "Games": users([0, 0.4], seed=3, each=100),
    }
    report = report_of([0, 0.2], domains=domains, offline_lifts={"B": {"Books": 0.03}})
    found = {domain.domain: domain for domain in report.comparisons[0].domains}
    assert found["Books"].p_holm == pytest.approx(2 * found["Books"].effect.p)
    assert found["Books"].effect.level == 0.05
    assert found["Toys"].p_holm == found["Toys"].effect.p > 0.05
    assert (found["Games"].p_holm, found["Games"].effect.status) == (None, "too_few_users")
    assert (found["Books"].offline_lift, found["Toys"].offline_lift) == (0.03, None)


def everything():
    rng = np.random.default_rng(0)
    domains = {"Books": users([0, 0.2], seed=1), "Toys | more": users([0, 0], seed=2)}
    days = {
        name: Sums.of(
            {
                c: values
                for day in range(3)
                for c, values in zip(columns(day), rng.poisson([[1], [10]], (2, 900)), strict=True)
            }
        )
        for name in "AB"
    }
    edges = np.geomspace(1, 1000, 31)
    return report_of(
        [0, 0.2],
        domains=domains,
        offline_lifts={"B": {"Books": 0.031}},
        by_exposure_day=days,
        exposure_days=(0, 1, 2),
        ranks={"Books": {name: RankCounts(np.array([100, 90]), np.array([10, 3])) for name in "AB"}},
        items_shown={"A": np.array([5, 5, 0]), "B": np.array([2, 9, 1])},
        latency={name: rng.integers(1, 9, 30) for name in "AB"},
        latency_edges=edges,
        findings=(w.Duplicates(severity="note", variant="A", rows=10, duplicates=1),),
    )


def test_json_has_every_figure_and_the_same_sentences_as_markdown():
    report = everything()
    read, text = json.loads(as_json(report)), as_markdown(report)
    assert as_json(report) == as_json(everything())
    assert read["sentence"] == wording.sentence(report)
    assert read["sentence"] in text
    assert read["findings"][0]["code"] == "duplicates"
    assert f"Note: {read['findings'][0]['text']}" in text
    assert read["comparisons"][0]["decisive"]["relative"] == report.comparisons[0].decisive.relative
    assert read["ranks"]["Books"]["ctr"]["A"] == [0.1, pytest.approx(3 / 90)]
    assert read["lists"]["overlap"] == {"B": pytest.approx(2 / 3)}
    assert "| 1 | 10.00 % | 10.00 % |" in text
    assert "| B | 100.0 % | 2.1 | 67 % |" in text
    assert "Toys \\| more" in text
    assert "3.1 %" in text
    assert "| A | p95 |" in text
    assert "day since exposure" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in lines)


def test_what_was_not_observed_is_not_in_the_report():
    text = as_markdown(report_of([0, 0.2]))
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# new-ranker",
        "## Arms",
        "## B against the control",
    ]


FINDINGS = [
    w.SampleRatio(severity="invalid", users={"A": 10, "B": 5}, expected={"A": 7.5, "B": 7.5}, p=0.0),
    w.ServedNotLogged(severity="invalid", variant="B", day=date(2026, 11, 25), served=100, logged=60),
    w.MixedUsers(severity="caution", mixed=1, users=10_000),
    w.Imbalance(severity="invalid", variant="B", metric="ctr before", control=0.05, treatment=0.06, p=1e-9),
    w.UnequalLists(severity="invalid", variant="B", control=10.0, treatment=20.0),
    w.Duplicates(severity="note", variant="A", rows=10, duplicates=1),
    w.Bots(
        severity="caution", users=5, users_share=0.005, requests_share=0.2, lifts={"B": 0.1}, lifts_without={"B": -0.05}
    ),
    w.UnfinishedWindows(severity="note", unfinished=3, recommendations=10),
    w.StrayClicks(severity="note", unknown_recommendation=1, never_shown=2, clicks=1000),
    w.ClockSkew(severity="caution", before=3, clicks=10),
    w.LateClicks(severity="caution", late=3, clicks=10),
    w.Novelty(severity="caution", variant="B", change_per_day=-0.02, interval=Interval(-0.03, -0.01), p=1e-4),
    w.Changed(severity="caution", at=START, what="traffic 0.1 to 0.5"),
    w.GuardrailWorse(
        severity="caution", variant="B", metric="error_share", control=0.0, treatment=0.1, difference=None
    ),
]


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: type(finding).__name__)
def test_every_finding_has_a_sentence(finding):
    text = wording.finding(finding)
    assert text.endswith(".")
    assert "None" not in text
    assert "nan" not in text
    assert wording.SEVERITIES[finding.severity]


def test_all_findings_actions_and_metrics_have_words():
    assert {type(finding) for finding in FINDINGS} == set(get_args(w.AnyFinding))
    assert all(wording.advice(action) for action in get_args(Action))
    assert {metric.name for metric in GUARDRAILS} <= set(wording.METRICS)


def test_sentences_with_the_numbers_that_matter():
    lost = wording.finding(FINDINGS[1])
    assert lost == "On 2026-11-25 B answered 100 times and 60 are in the log, 40 fewer."
    assert "B 10.0 % with and −5.0 % without them" in wording.finding(FINDINGS[6])
    assert "fades" in wording.finding(FINDINGS[11])
    found = Plan("ctr", 0.05, 0.05, 0.8, 0.04, 31_234, 12)
    assert wording.plan(found) == (
        "To find a change of click-through by 5.0 % (now 5.00 %) with 80 % probability, 31,234 users are needed: 12 days."
    )
    assert wording.plan(replace(found, days=1)).endswith("needed: 1 day.")
    assert "do not come within a year" in wording.plan(replace(found, days=None))
    one = np.ones(2000)
    assert "from 2,000 effective slots" in wording.off_policy(snips(np.arange(2000.0) % 2, one, np.arange(2000)))
    assert "2,000 slots are worth only 1 " in wording.off_policy(snips(one, np.eye(1, 2000)[0], np.arange(2000)))
    assert wording.percent(-0.0001) == "0.0 %"
    assert wording.when(Look(3, None, None, 0.01), None) == "no planned end, day 3"
