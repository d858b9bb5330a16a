"""The figure of `syncrec study truth`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from numpy.typing import NDArray

from training.figure import COLOURS
from training.studies.known_truth import INDEPENDENT, JOINT, SERVED, TOWERS
from training.studies.oracle import DomainMean
from training.studies.truth_findings import FIVE, MAY_LOSE, Found

# Values of one domain are a hundred times those of others: axes are linear up to the tick next to 0, and logarithmic from there.
GAP_TICKS = (-2, -0.5, -0.1, 0, 0.1, 0.4)
SHARE_TICKS = (-1, -0.2, -0.05, 0, 0.05, 0.2)
Floats = NDArray[np.float64]


def draw_truth(found: Found, file: Path) -> None:
    """Draw lambda against the oracle gap, the gaps of all worlds, and what is served; the figure appears whole."""
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 5.2), layout="constrained")
        _estimate(left, found)
        _gaps(middle, found)
        _served(right, found)
        figure.savefig(file.with_suffix(".partial.png"), dpi=110)
        plt.close(figure)
    file.with_suffix(".partial.png").replace(file)


def _estimate(axes: Axes, found: Found) -> None:
    five = found.gaps[FIVE]
    for number, (domain, gap) in enumerate(zip(five.domains, five.oracle, strict=True)):
        axes.plot(gap.by_seed, found.lambdas[:, number], "o", color=COLOURS[number], markersize=5, label=domain)
    for line in (axes.axhline, axes.axvline):
        line(0, color="#888888", linewidth=1)
    _symlog(axes, "x", GAP_TICKS)
    _symlog(axes, "y", GAP_TICKS)
    axes.set_xlabel("oracle gap (nats): independent − joint, held out")
    axes.set_ylabel("λ of LC-NTG (nats)")
    axes.set_title("five domains: λ and the truth (a point is a seed)", loc="left")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)


def _gaps(axes: Axes, found: Found) -> None:
    labels: list[str] = []
    for number, (name, gaps) in enumerate(found.gaps.items()):
        places = len(labels) + np.arange(len(gaps.domains), dtype=np.float64)
        _intervals(axes, gaps.oracle, np.ones(len(places)), places, COLOURS[number], name)
        labels += gaps.domains
    axes.axvline(0, color="#888888", linewidth=1)
    _symlog(axes, "x", GAP_TICKS)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("oracle gap (nats), 95 % interval over users")
    axes.set_title("what joint training is worth", loc="left")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)


def _served(axes: Axes, found: Found) -> None:
    domains = found.gaps[FIVE].domains
    names = {JOINT: "plain joint", TOWERS: "mixture of the towers", SERVED: "served mixture"}
    units = np.array([one.value for one in found.ndcg[INDEPENDENT]])
    for number, (name, label) in enumerate(names.items()):
        places = np.arange(len(domains), dtype=np.float64) + 0.2 * (number - 1)
        _intervals(axes, found.changes[name], units, places, COLOURS[number], label)
    axes.axvline(0, color="#888888", linewidth=1)
    axes.axvline(-MAY_LOSE, color="#888888", linewidth=1, linestyle=":")
    _symlog(axes, "x", SHARE_TICKS)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_yticks(range(len(domains)), domains)
    axes.invert_yaxis()
    axes.set_xlabel("NDCG@10 off the independent models, 95 % interval")
    axes.set_title(f"five domains: what is served (dotted: −{MAY_LOSE:.0%})", loc="left")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3)


def _symlog(axes: Axes, which: Literal["x", "y"], ticks: Sequence[float]) -> None:
    (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", linthresh=min(abs(tick) for tick in ticks if tick))
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter("{x:g}")
    (axes.set_xlim if which == "x" else axes.set_ylim)(min(ticks), max(ticks))
    axis.set_minor_locator(NullLocator())


def _intervals(axes: Axes, means: list[DomainMean], units: Floats, places: Floats, colour: str, label: str) -> None:
    value, low, high = (np.array([getattr(one, end) for one in means]) / units for end in ("value", "low", "high"))
    axes.errorbar(value, places, xerr=(value - low, high - value), fmt="o", markersize=4, color=colour, label=label)
