"""The figure of a run: what its log says of each domain over the steps, and validation over the epochs."""

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette, told apart with every common colour deficiency; from the ninth domain on line styles change.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999933"]
STYLES = ["-", "--", ":", "-."]
# What a log may hold of each domain -> the title, and where a reader wants a line.
SERIES = {
    "phi": ("gap φ per step (SDSR loss − CDSR loss, nats)", 0.0),
    "lambda": ("running gap λ (nats); below 0: negative transfer", 0.0),
    "mean_loss": ("mean loss of the domain's targets (nats)", 0.0),
    "weight": ("weight of the domain's loss (mean 1)", 1.0),
}


def draw_training(log: Path, file: Path) -> None:
    """Draw a run's log; the figure appears whole.

    Args:
        log: `log.jsonl` of the run.
        file: the PNG to write.
    """
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    if not steps:
        return
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        found = [key for key in SERIES if key in steps[0]]
        rows = (len(found) + 2) // 2
        figure, grid = plt.subplots(rows, 2, figsize=(11, 3.5 * rows), layout="constrained", squeeze=False)
        axes = list(grid.flat)
        for panel, key in zip(axes, found, strict=False):
            _series(panel, steps, key, *SERIES[key])
        _validation(axes[len(found)], epochs)
        for panel in axes[len(found) + 1 :]:
            panel.set_axis_off()
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
        figure.savefig(file.with_suffix(".partial.png"), dpi=110)
        plt.close(figure)
    file.with_suffix(".partial.png").replace(file)


def _series(axes: Axes, steps: list[dict[str, Any]], key: str, title: str, zero: float) -> None:
    x = range(1, len(steps) + 1)
    axes.axhline(zero, color="#888888", linewidth=1)
    for number, domain in enumerate(steps[0][key]):
        style = STYLES[number // len(COLOURS) % len(STYLES)]
        values = [step[key][domain] for step in steps]
        axes.plot(x, values, style, color=COLOURS[number % len(COLOURS)], linewidth=1.2, label=domain)
    axes.set_title(title, loc="left")
    axes.set_xlabel("training step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _validation(axes: Axes, epochs: list[dict[str, Any]]) -> None:
    scores = [epoch["validation_ndcg_at_10"] for epoch in epochs]
    axes.plot(range(1, len(scores) + 1), scores, "o-", color=COLOURS[0], markersize=3)
    if scores:
        best = scores.index(max(scores))
        axes.annotate("kept", (best + 1, scores[best]), textcoords="offset points", xytext=(0, 6), ha="center")
    axes.set_title("validation NDCG@10, mean of the domains", loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0, 1.15 * max(scores, default=1) or 1)
