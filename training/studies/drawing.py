"""What the figures of all studies share: colours that everybody tells apart, plain axes, intervals, a file that appears whole."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.figure import COLOURS, STYLES

MARKERS = "osD^v<>P"
_GREY = "#888888"


class Point(NamedTuple):
    """A value and the ends of its interval; both ends are the value where it has none."""

    value: float
    low: float
    high: float


def colour(number: int) -> str:
    """Of the n-th thing, from 0."""
    return COLOURS[number % len(COLOURS)]


def marker(number: int) -> str:
    """Of the n-th thing's points."""
    return MARKERS[number % len(MARKERS)]


def style(number: int) -> str:
    """Of the n-th thing's line; it changes where the colours begin anew."""
    return STYLES[number // len(COLOURS) % len(STYLES)]


@contextmanager
def drawn(file: Path, rows: int, columns: int, size: tuple[float, float]) -> Iterator[tuple[Figure, NDArray[Any]]]:
    """Panels to draw into; the PNG is written when the block ends well.

    Args:
        file: to write; a former one is replaced.
        rows, columns: of panels.
        size: of the whole, inches.
    Yields:
        the figure, and its `Axes`, [rows, columns].
    """
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure, panels = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
        try:
            yield figure, panels
            figure.savefig(file.with_suffix(".partial.png"), dpi=110)
        finally:
            plt.close(figure)
    file.with_suffix(".partial.png").replace(file)


def title(axes: Axes, text: str, x: str, y: str = "") -> None:
    """Name a panel and its axes; units belong into the names."""
    axes.set_title(text, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def legend(figure: Figure, axes: Axes, columns: int = 6) -> None:
    """One legend for all panels, below them, from what was drawn into one of them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False)


def intervals(axes: Axes, names: Sequence[str], series: Mapping[str, Sequence[Point | None]]) -> None:
    """Values from 0 with their intervals, a row for each name, from the top; of several series side by side.

    Args:
        axes: to draw into.
        names: of the rows.
        series: label -> a point for each row; None where there is none.
    """
    axes.axvline(0, color=_GREY, linewidth=1)
    for number, (label, points) in enumerate(series.items()):
        shift = 0.5 * (number - (len(series) - 1) / 2) / len(series)
        present = [(row + shift, point) for row, point in enumerate(points) if point is not None]
        y = [row for row, _ in present]
        x, ends = spans([point for _, point in present])
        axes.errorbar(
            x,
            y,
            xerr=ends,
            fmt=marker(number),
            color=colour(number),
            capsize=2,
            markersize=5,
            label=label,
        )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)


def spans(points: Sequence[Point]) -> tuple[list[float], NDArray[np.float64]]:
    """Values, and how far the ends are from them as `Axes.errorbar` takes it, [2, points]."""
    values = [point.value for point in points]
    ends = np.array([(point.value - point.low, point.high - point.value) for point in points]).reshape(-1, 2)
    return values, np.maximum(ends.T, 0)
