"""Drawing one view of a place.

H height, W width in pixels.
"""

from __future__ import annotations

import numpy as np

from .noise import noise_field, noise_line, smooth_step
from .places import Place, Structure, Surface

# how far a structure of size 1 extends to either side, in picture heights
_REACH = {
    "buildings": 0.12, "pillars": 0.07, "windows": 0.15, "shelves": 0.15, "trunks": 0.1, "reeds": 0.09,
    "rays": 0.6, "trees": 0.24, "rocks": 0.2, "lights": 0.08, "bubbles": 0.08,
}  # fmt: skip


def draw_place(place: Place, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """One view: (H, W, 3) float32 in [0, 1].

    Palette, horizon, zoom, grain, structures and light vary from view to view.
    """
    zoom = float(rng.uniform(0.8, 1.4))
    aspect = width / height
    ys = (np.arange(height, dtype=np.float32) + 0.5) / height
    xs = (np.arange(width, dtype=np.float32) + 0.5) / width * aspect
    x, y = np.meshgrid(xs + np.float32(rng.uniform(0, 3)), ys)
    tint = rng.normal(0, 0.03, 3).astype(np.float32)
    top = _paint(place.top, rng, x * zoom, y * zoom) + tint
    if place.layout == "full" and rng.random() < 0.5:
        canvas = (
            _paint(place.bottom, rng, x * zoom, y * zoom) if place.bottom.grain in ("dots", "cells") else top
        )
        return _lit(rng, _stand(place, rng, canvas, xs, ys, 0.9))
    horizon = float(rng.uniform(*place.horizon))
    ridge: np.ndarray = np.full(width, horizon, np.float32)
    if place.layout != "room":
        ridge = ridge + np.float32(rng.uniform(0.0, 0.04)) * noise_line(rng, width * 2, 1.3)[:width]
        ridge = ridge + np.float32(rng.normal(0, 0.05)) * (xs - 0.5 * aspect)
    below = smooth_step(y - ridge[None, :], 0.0, 2.0 / height)[..., None]
    depth = 0.25 / (np.maximum(y - horizon, 0.0) + 0.12)  # perspective: far ground is finer
    ground = _paint(place.bottom, rng, ((x - x.mean()) * depth + x.mean()) * zoom, depth * 1.5 * zoom) + tint
    canvas = top
    back = tuple(s for s in place.structures if s.shape in ("mountains", "buildings"))
    for structure in back:
        canvas = _structure(structure, rng, canvas, xs, ys, horizon)
    if place.layout == "room":
        canvas = _walls(rng, canvas, x - x[:1, :1], y)
    canvas = canvas + below * (ground - canvas)
    return _lit(rng, _stand(place, rng, canvas, xs, ys, horizon))


def _lit(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """Uneven light: large soft shadows and a gradient across the picture."""
    height, width, _ = canvas.shape
    shadow = 0.08 * noise_field(rng, height, width, 1.8)
    slope = rng.normal(0, 0.12, 2)
    shadow += np.linspace(-slope[0], slope[0], height, dtype=np.float32)[:, None]
    shadow += np.linspace(-slope[1], slope[1], width, dtype=np.float32)
    return np.clip(canvas * (1 + shadow[..., None]), 0, 1)


def _stand(
    place: Place, rng: np.random.Generator, canvas: np.ndarray, xs: np.ndarray, ys: np.ndarray, horizon: float
) -> np.ndarray:
    """Add the near structures."""
    for structure in place.structures:
        if structure.shape not in ("mountains", "buildings"):
            canvas = _structure(structure, rng, canvas, xs, ys, horizon)
    return canvas


def _walls(rng: np.random.Generator, canvas: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Darken a ceiling and one or two side walls, as in a room seen in perspective."""
    left, right = float(rng.uniform(-0.2, 0.3)), float(rng.uniform(0.7, 1.2))
    ceiling, slope = float(rng.uniform(-0.1, 0.2)), float(rng.uniform(0.3, 0.9))
    shade = 1.0 - 0.22 * smooth_step(left - x, 0, 0.02) - 0.3 * smooth_step(x - right, 0, 0.02)
    roof = ceiling - slope * np.maximum(left - x, 0) - slope * np.maximum(x - right, 0)
    return canvas * (shade * (1.0 - 0.35 * smooth_step(roof - y, 0, 0.02)))[..., None].astype(np.float32)


def _paint(surface: Surface, rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A surface over points given in picture heights: (H, W, 3)."""
    jitter = rng.normal(0, 0.04, 3).astype(np.float32)
    low, high = np.asarray(surface.low, np.float32) + jitter, np.asarray(surface.high, np.float32) + jitter
    size = 160
    field = noise_field(rng, size, size, surface.exponent, surface.stretch)
    grain = field[(y * 130).astype(np.int32) % size, (x * 130).astype(np.int32) % size]
    mix = 0.5 + 0.22 * grain
    phase = float(rng.uniform(0, 6))
    sx, sy = x * np.float32(surface.scale * np.pi), y * np.float32(surface.scale * np.pi)
    if surface.grain == "clouds":
        mix = smooth_step(grain, 0.2, 1.6)
    elif surface.grain == "waves":
        mix = 0.5 + 0.3 * np.sin(sy * 2 + 1.2 * grain + phase) + 0.12 * grain
    elif surface.grain == "grass":
        mix = 0.5 + 0.25 * np.sin(sx * 2 + 1.5 * grain + phase) + 0.15 * grain
    elif surface.grain == "dots":
        mix = smooth_step(
            np.sin(sx + 0.9 * grain) * np.sin(sy + 0.9 * np.roll(grain, 17, 0) + phase), 0.35, 0.3
        ) * (0.8 + 0.2 * grain)
    elif surface.grain == "tiles":
        edge = np.minimum(np.abs(np.sin(sx + phase)), np.abs(np.sin(sy)))
        mix = smooth_step(edge, 0.12, 0.15) * (0.85 + 0.1 * grain)
    elif surface.grain == "planks":
        mix = smooth_step(np.abs(np.sin(sx + phase)), 0.08, 0.1) * (
            0.6 + 0.2 * grain + 0.2 * np.sin(np.floor(sx / np.pi) * 2.4)
        )
    elif surface.grain == "cells":
        mix = smooth_step(np.abs(grain), 0.45, 0.5)
    elif surface.grain == "plain":
        mix = 0.5 + 0.06 * grain + 0.4 * (0.5 - y % 1.0)
    return low + np.clip(mix, -0.3, 1.3)[..., None].astype(np.float32) * (high - low)


def _structure(
    item: Structure,
    rng: np.random.Generator,
    canvas: np.ndarray,
    xs: np.ndarray,
    ys: np.ndarray,
    horizon: float,
) -> np.ndarray:
    """Draw `count` (give or take one) copies of one structure onto the canvas, in place."""
    x, y = np.meshgrid(xs, ys)
    jitter = rng.normal(0, 0.03, 3).astype(np.float32)
    colour, second = (
        np.asarray(item.colour, np.float32) + jitter,
        np.asarray(item.second, np.float32) + jitter,
    )
    if item.shape == "mountains":
        return _mountains(item, rng, canvas, xs, y, horizon, colour, second)
    height, width = y.shape
    grain = 1 + 0.12 * noise_field(rng, height, width, 1.0)
    reach = item.size * 1.35 * _REACH[item.shape]
    for _ in range(max(1, item.count + int(rng.integers(-1, 2)))):
        cx, size = float(rng.uniform(-0.05, 1.05)), item.size * float(rng.uniform(0.7, 1.35))
        left, right = (int(np.clip((cx + d) * height, 0, width)) for d in (-reach, reach))
        if left >= right:
            continue
        window = slice(left, right)  # only the columns that the copy can touch
        cover, mix = _shape(item.shape, rng, x[:, window] - cx, y[:, window], horizon, size, height)
        paint = (colour + mix[..., None] * (second - colour)) * grain[:, window, None]
        canvas[:, window] += cover[..., None].astype(np.float32) * (paint - canvas[:, window])
    return canvas


def _mountains(
    item: Structure,
    rng: np.random.Generator,
    canvas: np.ndarray,
    xs: np.ndarray,
    y: np.ndarray,
    horizon: float,
    colour: np.ndarray,
    second: np.ndarray,
) -> np.ndarray:
    """Ridges behind each other, the far ones paler."""
    for layer in range(2):
        profile = np.abs(noise_line(rng, 2 * len(xs), 1.4)[: len(xs)])
        ridge = horizon - item.size * (0.05 + (0.16 - 0.06 * layer) * profile)
        cover = smooth_step(y - ridge[None, :], 0, 2.0 / len(y))[..., None]
        grain = noise_field(rng, y.shape[0], y.shape[1], 1.0, 0.7)[..., None]
        peak = smooth_step(ridge[None, :] + 0.1 * item.size - y + 0.03 * grain[..., 0], 0, 0.08)[..., None]
        paint = (colour + peak * (second - colour)) * (0.95 + 0.1 * grain) * (0.75 + 0.25 * layer) + 0.15 * (
            1 - layer
        )
        canvas = canvas + cover * (paint.astype(np.float32) - canvas)
    return canvas


def _shape(
    shape: str,
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    horizon: float,
    size: float,
    height: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and share of the second colour of one copy centred on x = 0: two (H, W) arrays."""
    soft = 2.0 / height
    if shape in ("buildings", "pillars", "windows", "shelves"):
        return _boxy(shape, rng, x, y, horizon, size, soft)
    if shape == "trunks":
        lean, half = float(rng.normal(0, 0.08)), 0.025 * size
        cover = smooth_step(half - np.abs(x - lean * (y - horizon)), 0, soft) * smooth_step(
            horizon + 0.15 - y, 0, soft
        )
        return cover, np.clip(x / half * 0.5 + 0.5, 0, 1)
    if shape == "reeds":
        root, tall = float(rng.uniform(0.8, 1.1)), 0.35 * size
        sway = 0.04 * np.sin(y * 14 + float(rng.uniform(0, 6)))
        cover = smooth_step(0.035 * size - np.abs(x - sway), 0, soft) * smooth_step(
            y - (root - tall), 0, 3 * soft
        )
        return cover, smooth_step(np.sin(y * 40), 0, 1)
    if shape == "rays":
        slope = float(rng.normal(0, 0.5))
        cover = 0.45 * smooth_step((0.03 + 0.14 * y) * size - np.abs(x - slope * y), 0, 0.06)
        return cover, y
    cy = {"trees": horizon - 0.12 * size, "rocks": horizon + float(rng.uniform(0.02, 0.3))}.get(
        shape, float(rng.uniform(0.05, 0.8))
    )
    if shape == "lights":
        cy = float(rng.uniform(0.05, horizon))
    rx = {"trees": 0.14, "rocks": 0.12, "lights": 0.03, "bubbles": 0.05}[shape] * size
    ry = rx * {"trees": 1.3, "rocks": 0.6}.get(shape, 1.0)
    radius = np.sqrt((x / rx) ** 2 + ((y - cy) / ry) ** 2)
    if shape == "bubbles":
        return 0.7 * np.exp(-(((radius - 0.85) / 0.2) ** 2)), smooth_step(cy - y, 0, rx)
    if shape == "lights":
        return np.exp(-(radius**2)), np.full_like(x, float(rng.random() < 0.5))
    rough = 0.25 * noise_field(rng, x.shape[0], x.shape[1], 1.1)
    return smooth_step(1 + rough - radius, 0, 0.12), smooth_step(cy - y + 0.5 * rx * rough, 0, ry)


def _boxy(
    shape: str,
    rng: np.random.Generator,
    x: np.ndarray,
    y: np.ndarray,
    horizon: float,
    size: float,
    soft: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Upright rectangles with details in the second colour."""
    half = {"buildings": 0.1, "pillars": 0.05, "windows": 0.13, "shelves": 0.13}[shape] * size
    top = {
        "buildings": horizon - size * float(rng.uniform(0.15, 0.5)), "pillars": -0.1,
        "windows": float(rng.uniform(0.05, 0.2)), "shelves": horizon - 0.42 * size,
    }[shape]  # fmt: skip
    foot = {
        "buildings": horizon + 0.1,
        "pillars": horizon + 0.05,
        "windows": top + 0.3 * size,
        "shelves": horizon + 0.03,
    }[shape]
    cover = (
        smooth_step(half - np.abs(x), 0, soft)
        * smooth_step(y - top, 0, soft)
        * smooth_step(foot - y, 0, soft)
    )
    if shape == "pillars":
        return cover, np.clip(x / half * 0.5 + 0.5, 0, 1)
    if shape == "windows":
        bars = np.minimum(np.abs(x), np.abs(y - (top + foot) / 2))
        return cover, smooth_step(0.012 - bars, 0, soft)
    step_x, step_y = (0.035, 0.05) if shape == "buildings" else (0.018, 0.09)
    column, row = np.floor(x / step_x), np.floor((y - top) / step_y)
    chance = np.sin(column * 12.9898 + row * 78.233 + float(rng.uniform(0, 9))) * 43758.5453
    lit = (chance - np.floor(chance)) > 0.45
    inset = (np.abs(x / step_x - column - 0.5) < 0.32) & (np.abs((y - top) / step_y - row - 0.5) < 0.34)
    return cover, (lit & inset).astype(np.float32)
