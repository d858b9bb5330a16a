from datetime import UTC, date, datetime

import numpy as np
import pytest

from service.experiments.analysis import warnings as w
from service.experiments.analysis.bots import bots, suspected
from service.experiments.analysis.guardrails import GUARDRAILS, design_effect, latency_quantiles
from service.experiments.analysis.novelty import by_exposure_day, columns, novelty, trend
from service.experiments.analysis.ratio import estimate
from service.experiments.analysis.sums import Sums
from service.experiments.analysis.users import Users
from tests.service.experiments.analysis.simulated import MANY_DIFFERENT, arm, before_and_during

DAY, NEXT = date(2026, 11, 24), date(2026, 11, 25)
RUNS = 200
FEW, NEARLY_ALL = 0.01, 0.99


def share_of(found):
    return np.mean([bool(one) for one in found])


def test_sample_ratio():
    assert w.sample_ratio({"A": 0, "B": 0}, {"A": 1, "B": 1}) is None
    assert w.sample_ratio({"A": 5000, "B": 2500}, {"A": 2, "B": 1}) is None
    found = w.sample_ratio({"A": 5000, "B": 4500}, {"A": 0.5, "B": 0.5})
    assert found.expected == {"A": 4750, "B": 4750}
    assert found.p < 1e-6
    assert found.severity == "invalid"


def test_sample_ratio_alarms_at_one_in_a_thousand_and_sees_lost_users():
    rng = np.random.default_rng(0)
    b = rng.binomial(20_000, 0.5, 3000)
    assert share_of(w.sample_ratio({"A": 20_000 - n, "B": n}, {"A": 1, "B": 1}) for n in b) < 0.003
    lost = share_of(w.sample_ratio({"A": 20_000 - n, "B": int(0.9 * n)}, {"A": 1, "B": 1}) for n in b[:RUNS])
    assert lost >= NEARLY_ALL


def test_every_day_and_arm_of_lost_rows_is_named():
    served = {(DAY, "A"): 100, (DAY, "B"): 100, (NEXT, "A"): 10_000, (NEXT, "B"): 7}
    logged = {(DAY, "A"): 100, (DAY, "B"): 60, (NEXT, "A"): 10_001, (NEXT, "C"): 1}
    found = w.served_not_logged(served, logged)
    assert [(f.day, f.variant, f.served, f.logged, f.severity) for f in found] == [
        (DAY, "B", 100, 60, "invalid"),
        (NEXT, "A", 10_000, 10_001, "caution"),
        (NEXT, "B", 7, 0, "invalid"),
        (NEXT, "C", 0, 1, "invalid"),
    ]


@pytest.mark.parametrize(("mixed", "severity"), [(1, "caution"), (10, "caution"), (11, "invalid")])
def test_users_in_two_arms(mixed, severity):
    assert w.mixed_users(0, 10_000) is None
    assert w.mixed_users(mixed, 10_000).severity == severity


def test_imbalance_before_exposure():
    """As after an experiment with the same salt, whose winners come more often, or click more."""
    rng = np.random.default_rng(0)
    clean = [
        w.imbalance("B", arm(MANY_DIFFERENT, 1000, 0, rng), arm(MANY_DIFFERENT, 1000, 0, rng)) for _ in range(RUNS)
    ]
    assert share_of(clean) <= FEW
    columns_of = [before_and_during(MANY_DIFFERENT, 20_000, 0, rng) for _ in range(2)]
    a, b = map(Sums.of, columns_of)
    click_more = Sums.of(columns_of[1] | {"pre_clicks": columns_of[1]["pre_clicks"] * 1.2})
    come_more = Sums.of(
        columns_of[1] | {n: columns_of[1][n] * 1.2 for n in ("pre_requests", "pre_impressions", "pre_clicks")}
    )
    assert w.imbalance("B", a, b) == ()
    assert [f.metric for f in w.imbalance("B", a, click_more)] == ["ctr before"]
    assert [f.metric for f in w.imbalance("B", a, come_more)] == ["requests per user before"]


def test_lists_of_other_lengths():
    rng = np.random.default_rng(0)
    columns_of = [before_and_during(MANY_DIFFERENT, 1000, 0, rng) for _ in range(2)]
    a, b = map(Sums.of, columns_of)
    assert w.unequal_lists("B", a, b) is None  # all lists have ten items: nothing varies
    twice = Sums.of(columns_of[1] | {"impressions": columns_of[1]["impressions"] * 2})
    found = w.unequal_lists("B", a, twice)
    assert (found.control, found.treatment) == (pytest.approx(10), pytest.approx(20))

    # However sure, half a percent is no other product.
    hardly = Sums.of(columns_of[1] | {"impressions": columns_of[1]["impressions"] * 1.005})
    assert w.unequal_lists("B", a, hardly) is None

    # Lists that are now and then short, alike in both arms and then more often in one.
    def short(columns, share):
        return Sums.of(
            columns | {"impressions": columns["impressions"] - rng.binomial(columns["requests"].astype(int), share)}
        )

    assert share_of(w.unequal_lists("B", short(columns_of[0], 0.3), short(columns_of[1], 0.3)) for _ in range(50)) == 0
    assert w.unequal_lists("B", short(columns_of[0], 0.3), short(columns_of[1], 0.5)) is not None


def test_counts_that_should_be_zero():
    assert w.duplicates({"A": 10, "B": 12}, {"A": 10, "B": 11}) == (
        w.Duplicates(severity="note", variant="B", rows=12, duplicates=1),
    )
    assert w.unfinished_windows(0, 5) is None
    assert w.unfinished_windows(2, 5).unfinished == 2
    assert w.stray_clicks(0, 0, 1000) is None
    assert w.stray_clicks(1, 0, 1000).severity == "note"
    assert w.stray_clicks(1, 1, 1000).severity == "caution"
    assert w.clock_skew(0, 10) is None
    assert w.clock_skew(1, 10).severity == "caution"
    assert w.late_clicks(0, 10) is None
    assert (w.late_clicks(5, 100).severity, w.late_clicks(6, 100).severity) == ("note", "caution")
    at = datetime(2026, 11, 24, tzinfo=UTC)
    assert w.changed([(at, "traffic 0.1 to 0.5")]) == (w.Changed(severity="caution", at=at, what="traffic 0.1 to 0.5"),)


def with_bots(rng, share, clicking):
    """Users in two arms, some of whom come fifty times as often and click as `clicking` says."""
    people = MANY_DIFFERENT.draw(3000, rng)
    robot = rng.random(3000) < share
    people.rate[robot] = 300
    people.ctr[robot] = clicking
    values = people.act(rng)
    came = values["users"] > 0
    users = Users(("A", "B"), rng.integers(0, 2, 3000)[came], {name: v[came] for name, v in values.items()})
    return users, robot[came]


@pytest.mark.parametrize("clicking", [0.0, 0.05, 1.0])
def test_bots_are_found_whatever_they_click(clicking):
    rng = np.random.default_rng(1)
    assert share_of(bots(with_bots(rng, 0, 0)[0]) for _ in range(RUNS)) <= FEW
    assert share_of(bots(with_bots(rng, 0.005, clicking)[0]) for _ in range(100)) >= NEARLY_ALL
    users, robot = with_bots(rng, 0.005, clicking)
    found = suspected(users)
    assert found[robot].mean() > 0.95
    assert found[~robot].mean() < 5e-4


def test_the_rules_do_not_know_the_arm_and_both_lifts_are_shown():
    users, _ = with_bots(np.random.default_rng(2), 0.005, 1.0)
    other = Users(users.variants, 1 - users.variant, users.columns)
    np.testing.assert_array_equal(suspected(users), suspected(other))
    found = bots(users)
    people = users.sums(which=~suspected(users))
    assert found.users == suspected(users).sum()
    expected = people["B"].total("clicks") / people["B"].total("impressions")
    expected /= people["A"].total("clicks") / people["A"].total("impressions")
    assert found.lifts_without["B"] == pytest.approx(expected - 1)
    assert found.lifts["B"] != found.lifts_without["B"]
    assert bots(Users(("A", "B"), np.array([], dtype=int), users.columns)) is None


def test_many_requests_are_suspicious_only_with_no_click_or_nearly_all():
    busy = np.full(3, 80.0)
    ordinary = np.random.default_rng(0).poisson(np.random.default_rng(1).lognormal(1.3, 1, 2000)) + 1.0
    requests = np.concatenate([ordinary, busy])
    clicks = np.concatenate([0.5 * ordinary, [0, 0.05 * 800, 0.9 * 800]])
    users = Users(
        ("A", "B"), np.arange(2003) % 2, {"requests": requests, "impressions": 10 * requests, "clicks": clicks}
    )
    assert suspected(users)[2000:].tolist() == [True, False, True]


def by_day(rng, lifts):
    """An arm whose click-through is lifted by that much on each day since exposure."""
    people = MANY_DIFFERENT.draw(2000, rng)
    values = {}
    for day, lift in enumerate(lifts):
        acted = people.act(rng, time=0.4, lift=lift)
        values |= dict(zip(columns(day), (acted["clicks"], acted["impressions"]), strict=True))
    return Sums.of(values)


def test_an_effect_that_wears_off_is_told_from_one_that_stays():
    rng = np.random.default_rng(0)
    days = range(7)
    stays = [trend(by_day(rng, [0] * 7), by_day(rng, [0.2] * 7), days) for _ in range(200)]
    assert share_of(novelty("B", found) for found in stays) <= 0.015
    # The same users on all days: taking days as independent would be far off.
    slopes = [found.change_per_day for found in stays]
    errors = [(found.interval.upper - found.interval.lower) / 3.92 for found in stays]
    assert np.mean(errors) == pytest.approx(np.std(slopes), rel=0.12)
    fades = [0.9, 0.6, 0.4, 0.25, 0.15, 0.1, 0.05]
    faded = [novelty("B", trend(by_day(rng, [0] * 7), by_day(rng, fades), days)) for _ in range(100)]
    assert share_of(faded) >= NEARLY_ALL
    assert max(found.change_per_day for found in faded if found) < 0
    found = trend(by_day(rng, [0] * 7), by_day(rng, fades), days)
    assert found.days[0].interval.lower <= 0.9 <= found.days[0].interval.upper


def test_days_with_hardly_any_click_are_left_out():
    rng = np.random.default_rng(0)
    control, treatment = (by_day(rng, [0, -0.999, 0]) for _ in range(2))
    assert [day.day for day in trend(control, treatment, range(3)).days] == [0, 2]
    assert trend(control, treatment, [0]).change_per_day is None
    nothing = trend(control, treatment, [1])
    assert (nothing.days, novelty("B", nothing)) == ((), None)


def test_few_users_have_no_trend():
    rng = np.random.default_rng(0)
    few = Sums.of(dict(zip(columns(0), rng.poisson([[5], [50]], (2, 400)), strict=True)))
    assert trend(few, few, [0]).days == ()


def test_columns_by_day_since_exposure():
    user, day = np.array([0, 0, 2, 2, 2]), np.array([0, 1, 0, 0, 5])
    found = by_exposure_day(user, day, np.array([1.0, 2, 3, 4, 5]), np.full(5, 10.0), 4, [0, 1])
    assert {name: values.tolist() for name, values in found.items()} == {
        "clicks_day_0": [1, 0, 7, 0],
        "impressions_day_0": [10, 0, 20, 0],
        "clicks_day_1": [2, 0, 0, 0],
        "impressions_day_1": [10, 0, 0, 0],
    }


def guarded(rng, fallback, users=1000):
    values = before_and_during(MANY_DIFFERENT, users, 0, rng)
    requests = values["requests"].astype(int)
    of = {metric.numerator: np.zeros(len(requests)) for metric in GUARDRAILS}
    return Sums.of(
        values
        | of
        | {"popularity_requests": rng.binomial(requests, fallback), "latency_sum": rng.gamma(5.0 * requests)}
    )


def worse(control, treatment):
    effects = [estimate(control, treatment, metric) for metric in GUARDRAILS]
    return [found.metric for effect in effects if (found := w.guardrail_worse("B", effect))]


def test_a_guardrail_alarms_when_its_metric_gets_worse_and_only_then():
    rng = np.random.default_rng(0)
    assert share_of(worse(guarded(rng, 0.1), guarded(rng, 0.1)) for _ in range(RUNS)) <= FEW
    found = [worse(guarded(rng, 0.1), guarded(rng, 0.2)) for _ in range(50)]
    assert found == [["fallback_share"]] * 50
    assert worse(guarded(rng, 0.2), guarded(rng, 0.1)) == []
    # A control that never fell back: there is no relative lift, but a difference.
    assert worse(guarded(rng, 0), guarded(rng, 0.1)) == ["fallback_share"]
    assert worse(guarded(rng, 0), guarded(rng, 1)) == ["fallback_share"]


def test_latency_quantiles_of_a_histogram():
    """Lognormal latencies of users of whom some are always slow: the interval must know that requests are not alone."""
    rng = np.random.default_rng(0)
    edges = np.geomspace(0.1, 10_000, 120)
    truth, inside = 10 * np.exp(1.6449 * np.hypot(0.8, 0.5)), []
    for _ in range(200):
        of_user, requests = rng.normal(0, 0.8, 400), rng.poisson(rng.lognormal(2, 0.5, 400)) + 1
        user = np.repeat(np.arange(400), requests)
        latency = 10 * np.exp(of_user[user] + rng.normal(0, 0.5, len(user)))
        slow = np.bincount(user, latency > 20)
        effect = design_effect(Sums.of({"slow_requests": slow, "requests": requests}))
        assert effect > 2
        median, p95 = latency_quantiles(np.histogram(latency, edges)[0], edges, effect)
        assert median.value == pytest.approx(np.median(latency), rel=0.05)
        assert p95.value == pytest.approx(np.quantile(latency, 0.95), rel=0.05)
        inside.append(p95.interval.lower <= truth <= p95.interval.upper)
    assert np.mean(inside) >= 0.92
    assert latency_quantiles(np.zeros(119, dtype=int), edges, 1.0) == ()
    # Within a bucket evenly on a log scale.
    assert latency_quantiles(np.array([7]), np.array([1.0, 100.0]), 1.0)[0].value == pytest.approx(10)
    assert design_effect(Sums.of({"slow_requests": [0, 0], "requests": [3, 4]})) == 1
