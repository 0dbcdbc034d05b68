"""Places: where a scene is, as a family of views of which every instance looks different.

Colours are RGB in [0, 1]; lengths are shares of the picture.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .looks import Colour

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


def _rgb(code: str) -> Colour:
    return (int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255)


def _surface(low: str, high: str, grain: str, exponent: float, stretch: float, scale: float) -> Surface:
    return Surface(_rgb(low), _rgb(high), grain, exponent, stretch, scale)


def _structure(shape: str, colour: str, second: str, count: int, size: float) -> Structure:
    return Structure(shape, _rgb(colour), _rgb(second), count, size)


def named_places() -> tuple[Place, ...]:
    """The places of the sample data, in a fixed order."""
    sky, dusk = (
        _surface("6fa3dd", "e8f1fa", "clouds", 1.5, 2.0, 4),
        _surface("3a2a5a", "f0905a", "clouds", 1.7, 4.0, 4),
    )
    return (
        Place("pine wood", "open", _surface("203a20", "88a070", "noise", 1.0, 0.5, 4), _surface("2a2412", "6a5a30", "noise", 0.8, 1.5, 4), (0.6, 0.8), (_structure("trunks", "3a2614", "6a4a2a", 9, 1.0), _structure("trees", "1c3a1c", "3c6a30", 5, 1.2)), 0.8),
        Place("beach", "open", sky, _surface("c8a868", "f2e0b0", "noise", 0.8, 2.0, 4), (0.35, 0.5), (_structure("rocks", "8a7a5a", "b8a880", 4, 0.6),), 1.1),
        Place("open sea", "open", _surface("8ab8e0", "f4f8fc", "clouds", 1.6, 3.0, 4), _surface("0c3a6a", "4a90c0", "waves", 1.1, 5.0, 12), (0.25, 0.45), (), 1.0),
        Place("coral reef", "full", _surface("04305a", "1a90b0", "noise", 1.5, 1.0, 4), _surface("104a50", "40a090", "cells", 1.0, 1.0, 6), (0.6, 0.8), (_structure("bubbles", "b0e8f0", "e0ffff", 9, 0.6), _structure("reeds", "e06a70", "f0a040", 7, 0.9)), 0.9),
        Place("snowfield", "open", _surface("a8b8c8", "eef2f6", "clouds", 1.6, 2.0, 4), _surface("d0dae6", "fcfdff", "noise", 1.3, 2.0, 4), (0.45, 0.65), (_structure("mountains", "7a8698", "f4f8fc", 3, 1.0),), 1.1),
        Place("dunes", "open", _surface("d8b080", "f4dcb4", "plain", 1.7, 3.0, 4), _surface("a8602a", "e8a050", "waves", 1.2, 6.0, 7), (0.35, 0.6), (_structure("mountains", "c07a38", "e09a50", 3, 0.5),), 1.05),
        Place("downtown", "open", _surface("8a9098", "d0d6dc", "clouds", 1.5, 2.0, 4), _surface("303236", "606468", "planks", 0.8, 2.0, 5), (0.6, 0.78), (_structure("buildings", "50586a", "e8d890", 7, 1.2),), 0.9),
        Place("night market", "open", _surface("08081a", "1c1c3a", "plain", 1.3, 1.0, 4), _surface("1a1410", "4a3220", "tiles", 0.9, 1.0, 8), (0.6, 0.78), (_structure("shelves", "5a2030", "c04a30", 5, 1.0), _structure("lights", "ffc040", "ff5030", 12, 0.8)), 0.75),
        Place("library", "room", _surface("c8b898", "e8dcc4", "plain", 1.3, 1.0, 4), _surface("5a3a20", "8a6038", "planks", 0.9, 3.0, 7), (0.62, 0.78), (_structure("shelves", "5a3418", "b03a30", 6, 1.2),), 0.95),
        Place("kitchen", "room", _surface("e8ece8", "f8faf6", "tiles", 1.0, 1.0, 9), _surface("b8bcc0", "e0e4e8", "tiles", 1.0, 1.0, 7), (0.62, 0.78), (_structure("windows", "a8d0f0", "f4f8ff", 2, 1.0), _structure("pillars", "4a8a80", "70b0a0", 3, 0.8)), 1.1),
        Place("stage", "room", _surface("4a0812", "b01c2c", "grass", 1.2, 0.15, 9), _surface("3a2210", "8a5a30", "planks", 0.9, 4.0, 9), (0.65, 0.8), (_structure("rays", "fff0c0", "ffd070", 3, 1.0),), 0.85),
        Place("tulip field", "full", _surface("2a6a24", "58a03a", "grass", 0.8, 0.6, 10), _surface("3a7a2a", "e02858", "dots", 0.8, 1.0, 11), (0.3, 0.5), (), 1.05),
        Place("rooftop", "open", dusk, _surface("6a5a58", "9a8880", "tiles", 0.9, 1.0, 8), (0.5, 0.68), (_structure("buildings", "241c34", "f0b060", 6, 0.7),), 0.9),
    )  # fmt: skip
