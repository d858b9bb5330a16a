"""The figure of `syncrec study truth`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from training.studies.drawing import MARKERS, Point, colour, drawn, intervals, title
from training.studies.known_truth import INDEPENDENT, JOINT, SERVED, TOWERS
from training.studies.oracle import DomainMean
from training.studies.truth_findings import FIVE, MAY_LOSE, Found

# Values of one domain are a hundred times those of others: axes are linear up to the tick next to 0, and logarithmic from there.
GAP_TICKS: Final = (-2, -0.5, -0.1, 0, 0.1, 0.4)
SHARE_TICKS: Final = (-1, -0.2, -0.05, 0, 0.05, 0.2)
_GREY: Final = "#888888"


def draw_truth(found: Found, file: Path) -> None:
    """Draw lambda against the oracle gap, the gaps of all worlds, and what is served; the figure appears whole."""
    with drawn(file, 1, 3, (15, 5.6)) as (_, panels):
        left, middle, right = panels[0]
        _estimate(left, found)
        _gaps(middle, found)
        _served(right, found)
        for axes in (left, middle, right):
            axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=2)


def _estimate(axes: Axes, found: Found) -> None:
    five = found.gaps[FIVE]
    for number, (domain, gap) in enumerate(zip(five.domains, five.oracle, strict=True)):
        axes.plot(gap.by_seed, found.lambdas[:, number], MARKERS[number], color=colour(number), label=domain)
    for line in (axes.axhline, axes.axvline):
        line(0, color=_GREY, linewidth=1)
    _spread_out(axes, "x", GAP_TICKS)
    _spread_out(axes, "y", GAP_TICKS)
    title(axes, "five domains: λ and the truth, a point a seed", "oracle gap (nats), held out", "λ of LC-NTG (nats)")


def _gaps(axes: Axes, found: Found) -> None:
    """A row for each domain of each world; a world's domains are a series."""
    names = [domain for gaps in found.gaps.values() for domain in gaps.domains]
    series = {}
    first = 0
    for name, gaps in found.gaps.items():
        points = [_point(one, 1) for one in gaps.oracle]
        series[name] = [None] * first + points + [None] * (len(names) - first - len(points))
        first += len(points)
    intervals(axes, names, series)
    _spread_out(axes, "x", GAP_TICKS)
    title(axes, "what joint training is worth", "oracle gap (nats), 95 % interval over users")


def _served(axes: Axes, found: Found) -> None:
    names = {JOINT: "plain joint training", TOWERS: "mixture of the towers", SERVED: "served mixture"}
    series = {
        label: [_point(*pair) for pair in zip(found.changes[name], _units(found), strict=True)]
        for name, label in names.items()
    }
    intervals(axes, found.gaps[FIVE].domains, series)
    axes.axvline(-MAY_LOSE, color=_GREY, linewidth=1, linestyle=":")
    _spread_out(axes, "x", SHARE_TICKS)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    title(
        axes,
        f"five domains: NDCG@10 (dotted: −{MAY_LOSE:.0%})",
        "off the independent models, 95 % interval over users",
    )


def _units(found: Found) -> list[float]:
    return [one.value for one in found.ndcg[INDEPENDENT]]


def _point(mean: DomainMean, unit: float) -> Point:
    return Point(mean.value / unit, mean.low / unit, mean.high / unit)


def _spread_out(axes: Axes, which: Literal["x", "y"], ticks: Sequence[float]) -> None:
    scale, limits, axis = (
        (axes.set_xscale, axes.set_xlim, axes.xaxis) if which == "x" else (axes.set_yscale, axes.set_ylim, axes.yaxis)
    )
    scale("symlog", linthresh=min(abs(tick) for tick in ticks if tick))
    limits(min(ticks), max(ticks))
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
