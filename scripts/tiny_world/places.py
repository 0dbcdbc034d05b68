"""Places: where a scene is, as a family of views of which every instance looks different.

Colours are RGB in [0, 1]; lengths are shares of the picture.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .looks import Colour, rgb
from .named import PLACES

GRAINS = ("plain", "noise", "clouds", "waves", "grass", "dots", "tiles", "planks", "cells")
STRUCTURES = (
    "mountains",
    "buildings",
    "trees",
    "trunks",
    "pillars",
    "rocks",
    "lights",
    "bubbles",
    "reeds",
    "windows",
    "shelves",
    "rays",
)
LAYOUTS = ("open", "full", "room")


@dataclass(frozen=True)
class Surface:
    """A coloured, grained area."""

    low: Colour  # colour of the grain's valleys
    high: Colour  # colour of its peaks
    grain: str  # one of GRAINS
    exponent: float  # spectrum of the grain
    stretch: float  # > 1 horizontal, < 1 vertical grain
    scale: float  # periods across the picture of periodic grains


@dataclass(frozen=True)
class Structure:
    """Something that stands in the place."""

    shape: str  # one of STRUCTURES
    colour: Colour
    second: Colour
    count: int
    size: float


@dataclass(frozen=True)
class Place:
    """One place; every rendering of it is another view."""

    name: str  # answer to Where; "" for the unnamed places of pre-training
    layout: str  # one of LAYOUTS
    top: Surface  # sky, ceiling or everything
    bottom: Surface  # ground or floor
    horizon: tuple[float, float]  # range of its height from the top
    structures: tuple[Structure, ...]
    light: float  # mean exposure, 1 is neutral


def _random_colour(rng: np.random.Generator) -> Colour:
    """A colour of sky, leaves, earth, stone, sand, water, snow or night, or now and then any colour."""
    hue, hue_spread, saturation, value = _PALETTE[int(rng.integers(len(_PALETTE)))]
    if rng.random() < 0.25:
        hue, hue_spread, saturation, value = 0.5, 0.5, (0.1, 0.85), (0.1, 0.95)
    return colorsys.hsv_to_rgb(
        float(hue + rng.uniform(-hue_spread, hue_spread)) % 1.0,
        float(rng.uniform(*saturation)),
        float(rng.uniform(*value)),
    )


# hue, its spread, range of saturation, range of value
_PALETTE = (
    (0.58, 0.05, (0.15, 0.75), (0.5, 1.0)), (0.28, 0.09, (0.25, 0.8), (0.15, 0.75)),
    (0.08, 0.04, (0.25, 0.75), (0.1, 0.7)), (0.6, 0.4, (0.0, 0.12), (0.15, 0.95)),
    (0.11, 0.03, (0.15, 0.6), (0.6, 0.95)), (0.54, 0.07, (0.4, 1.0), (0.15, 0.7)),
    (0.6, 0.1, (0.0, 0.1), (0.85, 1.0)), (0.7, 0.15, (0.2, 0.7), (0.03, 0.2)),
    (0.03, 0.06, (0.5, 0.95), (0.4, 0.95)),
)  # fmt: skip


def _random_surface(rng: np.random.Generator) -> Surface:
    high = _random_colour(rng)
    other = (
        _random_colour(rng) if rng.random() < 0.4 else tuple(c * float(rng.uniform(0.3, 0.9)) for c in high)
    )
    return Surface(
        low=(other[0], other[1], other[2]),
        high=high,
        grain=str(rng.choice(GRAINS)),
        exponent=float(rng.uniform(0.6, 1.8)),
        stretch=float(np.exp(rng.normal(0, 0.7))),
        scale=float(rng.uniform(3, 16)),
    )


def random_place(rng: np.random.Generator) -> Place:
    """An unnamed place from the unbounded family."""
    layout = str(rng.choice(LAYOUTS, p=[0.55, 0.25, 0.2]))
    structures = tuple(
        Structure(
            str(rng.choice(STRUCTURES)),
            _random_colour(rng),
            _random_colour(rng),
            int(rng.integers(2, 10)),
            float(rng.uniform(0.4, 1.6)),
        )
        for _ in range(int(rng.integers(0, 4)))
    )
    middle = float(rng.uniform(0.3, 0.75))
    return Place(
        "",
        layout,
        _random_surface(rng),
        _random_surface(rng),
        (middle - 0.12, middle + 0.12),
        structures,
        float(rng.uniform(0.6, 1.2)),
    )


def named_places() -> tuple[Place, ...]:
    """The places of the sample data, in a fixed order; the same on every call."""
    return tuple(
        Place(
            name,
            layout,
            _surface(*top),
            _surface(*bottom),
            horizon,
            tuple(_structure(*s) for s in things),
            light,
        )
        for name, layout, top, bottom, horizon, things, light in PLACES
    )


def _surface(low: str, high: str, grain: str, exponent: float, stretch: float, scale: float) -> Surface:
    return Surface(rgb(low), rgb(high), grain, exponent, stretch, scale)


def _structure(shape: str, colour: str, second: str, count: int, size: float) -> Structure:
    return Structure(shape, rgb(colour), rgb(second), count, size)
