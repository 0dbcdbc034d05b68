"""Scenes: what is to be seen and heard in one clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .kinds import Kind
from .places import Place

CLIP_TYPES = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Seen:
    """A thing in the picture."""

    kind: Kind
    x: float  # centre, shares of the picture
    y: float
    size: float  # diameter, share of the picture
    flip: bool
    angle: float  # radians
    dx: float  # movement over the clip, shares of the picture
    dy: float


@dataclass(frozen=True)
class Heard:
    """A thing in the sound."""

    kind: Kind
    gain_db: float  # 0 is the usual level
    speed: float  # tape speed, 1 is the usual one
    pitch: float  # factor on the pitch alone


@dataclass(frozen=True)
class Scene:
    """One clip.

    Clip types: A the sounding thing is seen; B so is a silent one; C only a silent thing is seen; D as B, and
    a third thing sounds about as loud off screen.
    """

    place: Place
    seen: tuple[Seen, ...]
    heard: tuple[Heard, ...]  # the main sound first
    clip_type: str
    noise_db: float  # background noise relative to the main sound
    exposure: float  # 1 neutral
    count: int = 1  # copies of the first kind seen

    @property
    def visible(self) -> tuple[Seen, ...]:
        """Another name of `seen`."""
        return self.seen


def _place_things(kinds: list[Kind], rng: np.random.Generator) -> tuple[Seen, ...]:
    """Put the kinds beside each other in random order, so that they overlap little."""
    count = len(kinds)
    slots = rng.permutation(count)
    biggest = {1: 0.85, 2: 0.5, 3: 0.42}.get(count, 0.34)
    seen = []
    for kind, slot in zip(kinds, slots, strict=True):
        size = float(rng.uniform(0.65, 1.0) * biggest)
        width = 1.0 / count
        x = float((slot + 0.5) * width + rng.uniform(-0.25, 0.25) * (width if count > 1 else 0.9))
        y = float(rng.uniform(0.45, 0.72))
        dx, dy = (float(v) for v in rng.normal(0, 0.04, 2))
        seen.append(Seen(kind, x, y, size, bool(rng.random() < 0.5), float(rng.normal(0, 0.1)), dx, dy))
    return tuple(seen)


def compose_scene(
    rng: np.random.Generator,
    place: Place,
    main: Kind,
    partner: Kind | None = None,
    off_screen: Kind | None = None,
    *,
    clip_type: str = "A",
    count: int = 1,
    noise_db: tuple[float, float] = (-36.0, -14.0),
) -> Scene:
    """A scene in which `main` sounds; `partner` is silent (B, C, D), `off_screen` the second sound (D).

    Raises:
        ValueError: a clip type is unknown or lacks a thing that it needs.
    """
    if clip_type not in CLIP_TYPES:
        raise ValueError(f"clip_type is {clip_type!r}, expected one of {CLIP_TYPES}")
    if clip_type in "BCD" and partner is None:
        raise ValueError(f"clip type {clip_type} needs a silent partner; pass partner=")
    if clip_type == "D" and off_screen is None:
        raise ValueError("clip type D needs a second sound; pass off_screen=")
    visible = [main] * count if clip_type != "C" else []
    if partner is not None and clip_type != "A":
        visible.append(partner)
    sounds = [main] + ([off_screen] if clip_type == "D" and off_screen is not None else [])
    heard = tuple(
        Heard(
            k,
            float(rng.uniform(-5, 3)),
            float(rng.uniform(0.92, 1.08)),
            float(2 ** (rng.normal(0, 0.25) / 12)),
        )
        for k in sounds
    )
    return Scene(
        place,
        _place_things(visible, rng),
        heard,
        clip_type,
        float(rng.uniform(*noise_db)),
        float(np.exp(rng.normal(0, 0.12))),
        count,
    )


def random_scene(
    rng: np.random.Generator,
    kinds: tuple[Kind, ...],
    places: tuple[Place, ...],
    types: tuple[float, ...] = (0.5, 0.25, 0.12, 0.13),
) -> Scene:
    """A random scene; `types` are the chances of A, B, C and D. Kinds in one scene differ."""
    clip_type = str(rng.choice(CLIP_TYPES, p=types))
    main, partner, off_screen = (kinds[i] for i in rng.choice(len(kinds), 3, replace=False))
    count = int(rng.choice([1, 2, 3], p=[0.8, 0.12, 0.08])) if clip_type == "A" else 1
    return compose_scene(
        rng,
        places[int(rng.integers(len(places)))],
        main,
        partner,
        off_screen,
        clip_type=clip_type,
        count=count,
    )
