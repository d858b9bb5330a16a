"""Two methods on the same cases: by how much one is better, and whether such a test could see it at all."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from formats.errors import WrongUse
from training.bootstrap import DRAWS, Estimate, holm, user_bootstrap
from training.case_results import CaseResults
from training.metrics import Ranks

Metric = Callable[[Ranks], Ranks]
# A method: the results of its runs, which differ in their seeds only.
Seeds = Sequence[CaseResults]
Floats = NDArray[np.float64]

SIGNIFICANT: Final = 0.05


@dataclass(frozen=True)
class Difference:
    """A method against a baseline in one domain, or in the mean of the domains.

    n: cases.
    baseline, other: means of the metric, over seeds too.
    baseline_spread, other_spread: standard deviation of that mean between seeds; None of a single one.
    estimate: other - baseline, and how sure that is over users; what another seed would change is not in it.
    p_holm: its p-value adjusted for the number of domains; None in the mean of the domains, which is one question.
    """

    n: int
    baseline: float
    other: float
    baseline_spread: float | None
    other_spread: float | None
    estimate: Estimate
    p_holm: float | None

    @property
    def verdict(self) -> str:
        """Better or worse at 5 %, after Holm; otherwise the test cannot tell."""
        interval = self.estimate.interval
        if interval is None:
            return "too few users"
        p = interval.p if self.p_holm is None else self.p_holm
        if p >= SIGNIFICANT:
            return "not told apart"
        return "better" if self.estimate.value > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """Everything, in one level but for the interval."""
        interval = self.estimate.interval
        return {
            "n": self.n,
            "baseline": self.baseline,
            "other": self.other,
            "baseline_spread": self.baseline_spread,
            "other_spread": self.other_spread,
            "difference": self.estimate.value,
            "interval": None if interval is None else {**asdict(interval), "visible": interval.visible},
            "p_holm": self.p_holm,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Comparison:
    """By domain (None without cases), and as mean of the domains (None without any case)."""

    domains: dict[str, Difference | None]
    macro: Difference | None

    def to_json(self) -> dict[str, Any]:
        """Both."""
        domains = {name: found and found.to_json() for name, found in self.domains.items()}
        return {"domains": domains, "macro": self.macro and self.macro.to_json()}


def compare(baseline: Seeds, other: Seeds, metric: Metric, draws: int = DRAWS) -> Comparison:
    """Compare a method with a baseline, case by case; the metric of a case is first averaged over the seeds.

    Args:
        baseline, other: at least one run each.
        metric: ranks -> value of each case.
        draws: of the bootstrap over users.
    Raises:
        WrongUse: they are of other datasets, were evaluated otherwise, or have other cases.
    """
    for results in (*baseline[1:], *other):
        _refuse_other_cases(baseline[0], results)
    cases = baseline[0].cases
    names: list[str] = cases["domain"].dtype.categories.to_list()  # type: ignore[attr-defined]  # it is an Enum
    domain = cases["domain"].to_physical().to_numpy().astype(np.int64)
    user = cases["user_id"].rank("dense").to_numpy().astype(np.int64)
    ours, theirs = (np.stack([metric(results.ranks) for results in seeds]) for seeds in (other, baseline))
    found = user_bootstrap(ours.mean(axis=0) - theirs.mean(axis=0), user, domain, len(names), draws)
    p = [estimate.interval.p for estimate in found.groups if estimate and estimate.interval]
    adjusted = iter(holm(p))
    domains: dict[str, Difference | None] = dict.fromkeys(names)
    for number, estimate in enumerate(found.groups):
        if estimate is not None:
            own = domain == number
            p_holm = next(adjusted) if estimate.interval else None
            domains[names[number]] = _difference(theirs[:, own].mean(1), ours[:, own].mean(1), own, estimate, p_holm)
    if found.macro is None:
        return Comparison(domains, None)
    everything = np.ones(len(cases), dtype=np.bool_)
    macro = _difference(_macro(theirs, domain), _macro(ours, domain), everything, found.macro, None)
    return Comparison(domains, macro)


def _difference(
    baseline: Floats, other: Floats, which: NDArray[np.bool_], estimate: Estimate, p_holm: float | None
) -> Difference:
    """Of the means of each seed, [seeds], over these cases."""
    return Difference(
        n=int(which.sum()),
        baseline=float(baseline.mean()),
        other=float(other.mean()),
        baseline_spread=_spread(baseline),
        other_spread=_spread(other),
        estimate=estimate,
        p_holm=p_holm,
    )


def _spread(means: Floats) -> float | None:
    return float(means.std(ddof=1)) if len(means) > 1 else None


def _macro(values: Floats, domain: NDArray[np.int64]) -> Floats:
    """Mean over the domains with cases of the means of each, [seeds]."""
    means: Floats = np.mean([values[:, domain == number].mean(axis=1) for number in np.unique(domain)], axis=0)
    return means


def _refuse_other_cases(first: CaseResults, results: CaseResults) -> None:
    if results.fingerprint != first.fingerprint:
        raise WrongUse(
            f"{results.name} is of another dataset than {first.name}: "
            f"fingerprint {results.fingerprint[:12]}, not {first.fingerprint[:12]}"
        )
    told, wanted = results.protocol.describe(), first.protocol.describe()
    for name, value in wanted.items():
        if told[name] != value:
            raise WrongUse(
                f"{results.name} was evaluated otherwise than {first.name}: {name} {told[name]!r}, not {value!r}; "
                "evaluate both alike"
            )
    if not results.cases.equals(first.cases):
        raise WrongUse(f"{results.name} has other cases than {first.name}; evaluate both alike")
