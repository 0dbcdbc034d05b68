"""Pictures of a multi-task run: curves over the epochs, predictions beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from evaluation.png import save_png

INK = "#333333"
TRAIN, VALIDATION = "#bbbbbb", "#1f5fa8"
CELL = 1.6  # inches for a picture of the panel
PALETTE = "tab20"


def draw_curves(history: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Losses of every task and, where there was validation, every score, over the epochs."""
    epochs = [entry["epoch"] for entry in history]
    last = history[-1]
    tasks = list(last.get("val_losses", {})) or [f"task {n}" for n in range(len(last["train_losses"]))]
    scores = [(task, name) for task, names in last.get("val_scores", {}).items() for name in names]
    columns = 3
    rows = -(-(len(tasks) + len(scores)) // columns)
    figure = Figure(figsize=(columns * 2.8, rows * 1.9), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for number, (axes, task) in enumerate(zip(panels, tasks, strict=False)):
        axes.plot(epochs, [entry["train_losses"][number] for entry in history], color=TRAIN, label="training")
        if "val_losses" in last:
            values = [entry["val_losses"][task] for entry in history]
            axes.plot(epochs, values, color=VALIDATION, label="validation")
        axes.set_title(f"{task}: loss", fontsize=8, color=INK)
        axes.legend(fontsize=6, frameon=False)
    for axes, (task, name) in zip(panels[len(tasks) :], scores, strict=False):
        axes.plot(epochs, [entry["val_scores"][task][name] for entry in history], color=VALIDATION)
        axes.set_title(f"{task}: {name}", fontsize=8, color=INK)
    for axes in panels:
        axes.tick_params(labelsize=6, colors=INK)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(tasks) + len(scores) :]:
        axes.set_visible(False)
    return save_png(figure, path)


def draw_panel(samples: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """A row a sample: the image, then truth and prediction of every task.

    samples: dictionaries with image (3, H, W), targets and predicted, task -> array without batch axis.
    """
    tasks = list(samples[0]["targets"])
    columns = 1 + 2 * len(tasks)
    height, width = samples[0]["image"].shape[1:]
    size = (columns * CELL, len(samples) * CELL * height / width + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    panels = np.atleast_2d(figure.subplots(len(samples), columns))
    titles = ["image", *(f"{task}{what}" for task in tasks for what in ("", ", predicted"))]
    for row, sample in zip(panels, samples, strict=True):
        row[0].imshow(np.moveaxis(sample["image"], 0, -1).clip(0, 1))
        for number, task in enumerate(tasks):
            truth, predicted = sample["targets"][task], sample["predicted"][task]
            shown = row[1 + 2 * number : 3 + 2 * number]
            for axes, array in zip(shown, (truth, predicted), strict=True):
                axes.imshow(as_picture(task, array), **colours(task, truth, predicted))
    for axes, title in zip(panels[0], titles, strict=True):
        axes.set_title(title, fontsize=7, color=INK)
    for axes in panels.ravel():
        axes.set_axis_off()
    return save_png(figure, path)


def as_picture(task: str, array: NDArray) -> NDArray:
    """What imshow draws: class numbers, metres, or colours of unit vectors."""
    if task == "segmentation":
        classes = array.argmax(0) if array.ndim == 3 else array
        return np.ma.masked_less(classes, 0)
    if task == "normal":
        length = np.sqrt((array**2).sum(0, keepdims=True))
        unit = np.where(length > 1e-6, array / np.maximum(length, 1e-6), -1)
        return np.moveaxis((unit + 1) / 2, 0, -1)
    return np.ma.masked_equal(array[0], 0)


def colours(task: str, truth: NDArray, predicted: NDArray) -> dict[str, Any]:
    """The same scale of colours for truth and prediction."""
    if task == "segmentation":
        classes = len(predicted) if predicted.ndim == 3 else int(truth.max()) + 1
        return {"cmap": PALETTE, "vmin": 0, "vmax": max(classes - 1, 1), "interpolation": "nearest"}
    if task == "normal":
        return {}
    return {"cmap": "viridis", "vmin": 0, "vmax": float(truth.max()) or 1.0}
