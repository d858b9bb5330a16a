"""The figure of `syncrec study estimators`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from training.studies.drawing import colour, drawn, title
from training.studies.estimator_findings import Findings


def draw_estimators(found: Findings, file: Path) -> None:
    """Draw how well every estimator ranks the domains, and what the remedy makes of it; the figure appears whole."""
    names = [one.name for one in found.tried]
    with drawn(file, 1, 2, (11, 4.6)) as (_, panels):
        left, right = panels[0]
        _seeds(left, names, [one.spearman for one in found.tried])
        left.axvline(0.9, color="#888888", linewidth=1, linestyle=":")
        left.set_xlim(-1.05, 1.05)
        title(left, "does it know?", "Spearman with the oracle gap (dotted: 0.9)")
        _seeds(right, names, [one.harm / found.harm - 1 for one in found.tried])
        right.xaxis.set_major_formatter(PercentFormatter(1))
        right.set_yticklabels([])
        title(right, "does it help?", "change of joint training's harm by the remedy; a dot a seed, the bar their mean")


def _seeds(axes: Axes, names: Sequence[str], values: Sequence[NDArray[np.float64]]) -> None:
    axes.axvline(0, color="#888888", linewidth=1)
    for row, of_row in enumerate(values):
        axes.plot(of_row, np.full(len(of_row), row), "o", color=colour(0), markersize=4, alpha=0.7)
        axes.plot([of_row.mean()] * 2, [row - 0.3, row + 0.3], "-", color=colour(1), linewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
