"""Pictures of a summary as PNG files: accuracy matrices, forgetting curves, routing confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.png import save_png
from evaluation.summary import METHOD_TITLES
from evaluation.tables import has_stages

PANEL = 0.7  # inches for each cell of a heat map
INK, FAINT = "#333333", "#bbbbbb"
# method -> (colour, line style); one colour stands out, the rest stays quiet
OTHER = ("#bfa15a", "--")  # further rows
LINES: dict[str, tuple[str, str]] = {
    "anchor_moe": ("#1f5fa8", "-"),
    "oracle": ("#7fa8d6", "--"),
    "sequential": ("#c8553d", "-"),
    "blind": ("#999999", "-"),
    "joint": ("#3f8f5b", ":"),
    "zero_shot": ("#999999", ":"),
}


def _heat_map(
    axes: Axes, values: np.ndarray, labels: list[list[str]], rows: Sequence[str], columns: Sequence[str]
) -> None:
    """Draw percentages (rows, columns) from white to blue with a label in each cell; NaN cells stay blank."""
    axes.imshow(np.ma.masked_invalid(values), cmap="Blues", vmin=0, vmax=115, aspect="equal")
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 65 else INK
        axes.text(column, row, labels[row][column], ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0, labelsize=9, colors=INK)
    axes.spines[:].set_visible(False)


def _percent(matrix: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if cell is None else cell for cell in row] for row in matrix], dtype=float)


def _staged(summary: Mapping[str, Any]) -> list[str]:
    """Methods with a row for each stage, in the order of the table."""
    methods = summary["methods"]
    return [name for name in METHOD_TITLES if name in methods and has_stages(methods[name]["matrix"])]


def draw_matrices(summary: Mapping[str, Any], path: Path) -> Path | None:
    """One heat map for each method with stages: accuracy on task (column) after learning a task (row)."""
    tasks, names = summary["tasks"], _staged(summary)
    if not names:
        return None
    T = len(tasks)
    figure = Figure(figsize=(len(names) * (T * PANEL + 0.5) + 1.0, T * PANEL + 1.3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    for axes, name in zip(panels, names, strict=True):
        values = _percent(summary["methods"][name]["matrix"])
        labels = [["" if np.isnan(cell) else f"{cell:.1f}" for cell in row] for row in values]
        _heat_map(axes, values, labels, [f"after {task}" for task in tasks], tasks)
        axes.set_title(METHOD_TITLES[name].split(" (")[0], fontsize=10, color=INK)
    figure.suptitle(f"{summary['benchmark']}: accuracy in percent", fontsize=11, color=INK)
    return save_png(figure, path)


def draw_forgetting(summary: Mapping[str, Any], path: Path) -> Path | None:
    """A panel for each task but the last: its accuracy after each stage since it was learned."""
    tasks, staged = summary["tasks"], _staged(summary)
    if not staged:
        return None
    T = len(tasks)
    figure = Figure(figsize=(2.4 * T - 1.0, 3.3), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, T - 1, sharey=True))
    for i, axes in enumerate(panels):
        for name, entry in summary["methods"].items():
            colour, style = LINES.get(name, OTHER)
            curve = _percent(entry["matrix"])[:, i]
            if name in staged:
                stages, curve = range(i, T), curve[i:]
            else:  # no stages: its final accuracy as a level
                stages, curve = range(T), np.repeat(curve[-1:], T)
            marker = "o" if name in staged else None
            axes.plot(
                stages,
                curve,
                style,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.6,
                label=METHOD_TITLES[name],
            )
        axes.set_title(tasks[i], fontsize=10, color=INK)
        axes.set_xticks(range(T), tasks, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.3, T - 0.7)
        axes.set_ylim(-3, 103)
        axes.grid(axis="y", color=FAINT, linewidth=0.4)
        axes.tick_params(length=2, labelsize=8, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy on the task (%)", fontsize=9, color=INK)
    figure.supxlabel("after learning", fontsize=9, color=INK)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize=8, frameon=False)
    return save_png(figure, path)


def draw_routing(summary: Mapping[str, Any], path: Path) -> Path | None:
    """The anchor MoE's confusion matrix beside what each modality alone would have reached."""
    entry, tasks = summary["methods"].get("anchor_moe", {}), summary["tasks"]
    if not entry.get("routing_confusion"):
        return None
    counts, columns = np.array(entry["routing_confusion"]), list(tasks)
    if any(entry["routing_abstained"]):
        counts = np.column_stack([counts, entry["routing_abstained"]])
        columns.append("bare backbone")
    values = 100.0 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    wide, high = len(columns) * PANEL, len(tasks) * PANEL
    figure = Figure(figsize=(wide + 4.9, high + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[wide, 3.2])
    labels = [
        [f"{share:.1f}\n({n})" if n else "" for share, n in zip(*row, strict=True)]
        for row in zip(values, counts, strict=True)
    ]
    _heat_map(left, values, labels, tasks, columns)
    left.set_xlabel("sent to the expert of", fontsize=9, color=INK)
    left.set_ylabel("sample of task", fontsize=9, color=INK)
    left.set_title("routing, percent (samples)", fontsize=10, color=INK)
    bars = {"all together": entry["routing_accuracy"]}
    bars |= {f"{name} alone": alone["accuracy"] for name, alone in entry["routing_by_modality"].items()}
    places = range(len(bars))
    right.barh(places, list(bars.values()), height=0.55, color=["#1f5fa8"] + ["#b8cbe2"] * (len(bars) - 1))
    white = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for place, value in zip(places, bars.values(), strict=True):
        right.text(value + 2, place, f"{value:.1f}", va="center", fontsize=9, color=INK, bbox=white)
    right.set_yticks(places, list(bars))
    right.set_ylim(len(bars) - 0.4, -0.6)
    right.set_xlim(0, 115)
    right.set_xticks([0, 50, 100])
    right.axvline(
        100 / len(tasks), color=FAINT, linewidth=1, linestyle="--", zorder=0
    )  # chance for balanced tasks
    right.set_title("routed right, percent (dashed: 1 / tasks)", fontsize=10, color=INK)
    right.tick_params(length=0, labelsize=9, colors=INK)
    right.spines[["top", "right"]].set_visible(False)
    figure.suptitle(summary["benchmark"], fontsize=11, color=INK)
    return save_png(figure, path)


def draw_pictures(summary: Mapping[str, Any], out_dir: Path) -> list[Path]:
    """Draw every picture that the summary has results for; returns the files written."""
    drawn = [
        draw_matrices(summary, out_dir / "accuracy_matrix.png"),
        draw_forgetting(summary, out_dir / "forgetting.png"),
        draw_routing(summary, out_dir / "routing_confusion.png"),
    ]
    return [path for path in drawn if path is not None]
