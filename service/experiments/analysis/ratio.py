"""Ratios of sums over users, compared between two arms: delta method and CUPED by tea-tasting.

The unit is the user, who was assigned; impressions and requests of one user are not independent, and a test that takes
them for such finds differences that are not there in a third to a half of all experiments.
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

from scipy.stats import norm
from tea_tasting.aggr import Aggregates
from tea_tasting.metrics import RatioOfMeans

from service.experiments.analysis.sums import Sums

# Below, the normal approximation says "different" too often: 5.8 % instead of 5 at 100 and 300 users an arm.
FEWEST_USERS: Final = 500
LEVEL: Final = 0.05
ROUNDING: Final = 1e-12

Status = Literal["measured", "too_few_users", "undefined"]


@dataclass(frozen=True)
class Ratio:
    """A metric: sum of `numerator` over users by sum of `denominator`.

    pre: whether both columns also exist as `pre_...`, from the time before exposure, for CUPED.
    """

    name: str
    numerator: str
    denominator: str
    pre: bool = False

    def before(self) -> "Ratio":
        """The same metric in the time before exposure."""
        return Ratio(f"{self.name} before", f"pre_{self.numerator}", f"pre_{self.denominator}")

    @property
    def columns(self) -> tuple[str, ...]:
        """That it is made of, the past included."""
        now = (self.numerator, self.denominator)
        return (*now, *self.before().columns) if self.pre else now

    def of(self, sums: Sums) -> float | None:
        """Its value in one arm; None without a denominator."""
        below = sums.total(self.denominator)
        return sums.total(self.numerator) / below if below > 0 else None


CTR: Final = Ratio("ctr", "clicks", "impressions", pre=True)
CLICKS_PER_REQUEST: Final = Ratio("clicks_per_request", "clicks", "requests", pre=True)
# `users` is 1 for each user.
IMPRESSIONS_PER_USER: Final = Ratio("impressions_per_user", "impressions", "users")
IMPRESSIONS_PER_REQUEST: Final = Ratio("impressions_per_request", "impressions", "requests")


def has_past(sums: Sums, metric: Ratio) -> bool:
    """Whether anything is known of these users from before their exposure."""
    before = metric.before()
    return metric.pre and before.denominator in sums.columns and sums.total(before.denominator) > 0


@dataclass(frozen=True)
class Interval:
    """From `lower` to `upper`."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Effect:
    """What treatment did to a metric.

    metric: its name.
    users: of control and treatment.
    control, treatment: values of the metric; None without a denominator, as are all others then.
    difference, difference_interval: treatment - control.
    relative, relative_interval: of control; None where control is 0.
    p: two-sided, of no difference.
    level: 1 - confidence of the intervals.
    status: "too_few_users" has no intervals and no p; "undefined" neither, because nothing varies or there is no
        denominator.
    """

    metric: str
    users: tuple[int, int]
    control: float | None
    treatment: float | None
    difference: float | None
    relative: float | None
    difference_interval: Interval | None
    relative_interval: Interval | None
    p: float | None
    level: float
    status: Status

    @property
    def standard_error(self) -> float | None:
        """Of the difference."""
        if self.difference_interval is None:
            return None
        width = self.difference_interval.upper - self.difference_interval.lower
        return width / (2 * float(norm.isf(self.level / 2)))


def compare(control: Sums, treatment: Sums, metric: Ratio, level: float = LEVEL) -> Effect:
    """The effect, without a word on significance below `FEWEST_USERS` an arm."""
    if min(control.n, treatment.n) < FEWEST_USERS:
        return _unsure(control, treatment, metric, level, "too_few_users")
    return estimate(control, treatment, metric, level)


def adjusted(control: Sums, treatment: Sums, metric: Ratio, level: float = LEVEL) -> Effect | None:
    """The effect with CUPED; None for a metric without a past, or if nobody was here before.

    A user without a past counts 0 of both columns. In the linearised ratio clicks - R * impressions that is just the
    mean, so it is mean imputation, and no indicator of new users is needed; both are known before assignment,
    so that nothing is biased.
    """
    if not has_past(control + treatment, metric):
        return None
    if min(control.n, treatment.n) < FEWEST_USERS:
        return _unsure(control, treatment, metric, level, "too_few_users")
    return estimate(control, treatment, metric, level, metric.before())


def estimate(
    control: Sums, treatment: Sums, metric: Ratio, level: float = LEVEL, covariate: Ratio | None = None
) -> Effect:
    """The effect whatever the number of users: for checks, which rather warn once too often."""
    if min(control.n, treatment.n) < 2 or None in {metric.of(control), metric.of(treatment)}:
        return _unsure(control, treatment, metric, level, "undefined")
    pair, names = (metric.numerator, metric.denominator), [metric.numerator, metric.denominator]
    if covariate is not None:
        if covariate.of(control) is None or covariate.of(treatment) is None:
            return _unsure(control, treatment, metric, level, "undefined")
        names += [covariate.numerator, covariate.denominator]
    arms = [sums.aggregates(tuple(names)) for sums in (control, treatment)]
    if not any(_varies(arm, *pair) for arm in arms):
        return _unsure(control, treatment, metric, level, "undefined")
    # Normal, not t: the bounds of looks are normal, and from 500 users on nobody can tell.
    found = RatioOfMeans(*names, confidence_level=1 - level, use_t=False).analyze_aggregates(*arms)
    relative = math.isfinite(found.rel_effect_size)
    in_relative = math.isfinite(found.rel_effect_size_ci_lower) and math.isfinite(found.rel_effect_size_ci_upper)
    return Effect(
        metric=metric.name,
        users=(control.n, treatment.n),
        control=float(found.control),
        treatment=float(found.treatment),
        difference=float(found.effect_size),
        relative=float(found.rel_effect_size) if relative else None,
        difference_interval=Interval(float(found.effect_size_ci_lower), float(found.effect_size_ci_upper)),
        relative_interval=(
            Interval(float(found.rel_effect_size_ci_lower), float(found.rel_effect_size_ci_upper))
            if relative and in_relative
            else None
        ),
        p=found.pvalue,
        level=level,
        status="measured",
    )


@dataclass(frozen=True)
class Measured:
    """One ratio of one group of users, with an interval, and p of it being 0; None where nothing can be said."""

    users: int
    value: float | None
    interval: Interval | None
    p: float | None


def measure(sums: Sums, metric: Ratio) -> Measured:
    """The ratio by the delta method, at 95 %."""
    value = metric.of(sums)
    if value is None or sums.n < 2:
        return Measured(sums.n, value, None, None)
    names = (metric.numerator, metric.denominator)
    found = sums.aggregates(names)
    if not _varies(found, *names):
        return Measured(sums.n, value, None, None)
    error = math.sqrt(found.ratio_var(*names) / sums.n)
    half = float(norm.isf(LEVEL / 2)) * error
    p = float(2 * norm.sf(abs(value) / error))
    return Measured(sums.n, value, Interval(value - half, value + half), p)


def variance_cut(plain: Effect, cuped: Effect) -> float | None:
    """Share of the variance of the difference that CUPED removed."""
    if not plain.standard_error or cuped.standard_error is None:
        return None
    return 1 - (cuped.standard_error / plain.standard_error) ** 2


def _varies(arm: Aggregates, numerator: str, denominator: str) -> bool:
    """Whether the ratio differs between users at all, and not by rounding only."""
    largest = (arm.var(numerator) + arm.mean(numerator) ** 2) / arm.mean(denominator) ** 2
    return bool(arm.ratio_var(numerator, denominator) > ROUNDING * largest)


def _unsure(control: Sums, treatment: Sums, metric: Ratio, level: float, status: Status) -> Effect:
    """What can be said without an interval."""
    a, b = metric.of(control), metric.of(treatment)
    difference = None if a is None or b is None else b - a
    return Effect(
        metric=metric.name,
        users=(control.n, treatment.n),
        control=a,
        treatment=b,
        difference=difference,
        relative=difference / a if a and difference is not None else None,
        difference_interval=None,
        relative_interval=None,
        p=None,
        level=level,
        status=status,
    )
