"""Pictures as PNG files."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from model.moe.atomic import atomic_write

DPI = 150


def save_png(figure: Figure, path: Path) -> Path:
    """Write a PNG atomically, without a date, so that equal contents give equal files."""
    FigureCanvasAgg(figure)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return path
