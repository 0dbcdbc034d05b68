"""Body plans: how a thing is put together from rounded parts.

Coordinates: x to the right, y down, the thing fills about [-1, 1] in both. Parts go from back to front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """One super-ellipse."""

    x: float  # centre
    y: float
    rx: float  # half axes
    ry: float
    angle: float = 0.0  # radians
    power: int = 2  # 2 ellipse, 4 rounded box, 8 box
    colour: int = 0  # index into the thing's palette
    swing: float = 0.0  # how far (radians) the part may turn between two views
    patterned: bool = True  # carries the thing's texture


Parts = tuple[Part, ...]


def _u(rng: np.random.Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def quadruped(rng: np.random.Generator) -> Parts:
    """Four legs, body, neck, head, ears or horns, tail."""
    length, depth, leg = _u(rng, 0.45, 0.66), _u(rng, 0.2, 0.38), _u(rng, 0.22, 0.5)
    thick, head, lift = _u(rng, 0.05, 0.11), _u(rng, 0.14, 0.26), _u(rng, -0.5, 0.05)
    foot_y, front, legs = depth * 0.5 + leg * 0.5, length * 0.72, int(rng.random() < 0.3)
    hx, hy = length + head * 0.6, lift - 0.05
    parts = [
        Part(x * front, foot_y, thick, leg * 0.75, 0.1 * s, 4, legs, 0.25)
        for x, s in ((-1.05, 1), (0.8, -1), (-0.8, -1), (1.05, 1))
    ]
    parts.insert(
        0,
        Part(
            -length - 0.12,
            _u(rng, -0.2, 0.1),
            _u(rng, 0.12, 0.3),
            _u(rng, 0.03, 0.1),
            _u(rng, -0.9, 0.9),
            2,
            0,
            0.5,
        ),
    )
    parts.append(Part(0, 0, length, depth, _u(rng, -0.12, 0.12)))
    parts.append(Part(length * 0.85, lift * 0.5, 0.12, abs(lift) * 0.6 + 0.14, 0.5, 2, 0, 0.1))
    ear, tall = int(rng.integers(0, 3)), _u(rng, 0.06, 0.24)
    parts.append(Part(hx - 0.08, hy - head * 0.8, 0.05, tall, _u(rng, -0.5, 0.2), 2, ear, 0.2, False))
    parts.append(
        Part(hx, hy, head, head * _u(rng, 0.65, 1.0), _u(rng, 0.0, 0.5), 2, int(rng.integers(0, 2)), 0.15)
    )
    parts.append(
        Part(hx + head * 0.75, hy + head * 0.3, head * _u(rng, 0.3, 0.6), head * 0.35, 0.3, 2, 1, 0.1, False)
    )
    parts.append(Part(hx + head * 0.3, hy - head * 0.2, 0.035, 0.035, 0, 2, 3, 0.0, False))
    return tuple(parts)


def bird(rng: np.random.Generator) -> Parts:
    """Body, wing, tail, head, beak, two legs."""
    length, depth = _u(rng, 0.35, 0.55), _u(rng, 0.2, 0.36)
    tilt, head, tail = _u(rng, -0.9, -0.1), _u(rng, 0.12, 0.22), _u(rng, 0.2, 0.6)
    neck = _u(rng, 0.0, 0.4)
    hx, hy = length * 0.8 * np.cos(tilt) + 0.05, length * np.sin(tilt) - 0.08 - neck
    leg = _u(rng, 0.15, 0.42)
    return (
        Part(
            -length - tail * 0.4,
            0.25 - tilt * 0.25,
            tail,
            _u(rng, 0.05, 0.14),
            tilt * 0.8,
            4,
            int(rng.integers(0, 3)),
            0.2,
        ),
        Part(-0.08, depth + leg * 0.6, 0.025, leg, 0.1, 4, 2, 0.2, False),
        Part(0.1, depth + leg * 0.6, 0.025, leg, -0.1, 4, 2, 0.2, False),
        Part(hx - 0.1, hy + neck * 0.5, 0.09, neck * 0.6 + 0.12, 0.3, 2, int(rng.integers(0, 2)), 0.1),
        Part(0, 0, length, depth, tilt * 0.6),
        Part(-0.1, -0.02, length * _u(rng, 0.55, 0.85), depth * _u(rng, 0.45, 0.7), tilt * 0.7, 2, 1, 0.2),
        Part(
            hx + head * 1.3,
            hy + 0.03,
            head * _u(rng, 0.5, 1.3),
            head * _u(rng, 0.15, 0.4),
            0.15,
            2,
            2,
            0.1,
            False,
        ),
        Part(hx, hy, head, head * 0.9, 0, 2, int(rng.integers(0, 2)), 0.1),
        Part(hx + head * 0.35, hy - head * 0.2, 0.035, 0.035, 0, 2, 3, 0.0, False),
    )


def fish(rng: np.random.Generator) -> Parts:
    """Streamlined body, tail fin, back fin, belly fin."""
    length, depth, fin = _u(rng, 0.55, 0.78), _u(rng, 0.18, 0.42), _u(rng, 0.12, 0.3)
    return (
        Part(-length - 0.05, -fin * 0.6, fin * 1.2, fin * 0.5, 0.7, 2, 1, 0.25),
        Part(-length - 0.05, fin * 0.6, fin * 1.2, fin * 0.5, -0.7, 2, 1, 0.25),
        Part(_u(rng, -0.2, 0.2), -depth, fin, fin * 0.6, _u(rng, 0.2, 0.7), 2, 1, 0.1),
        Part(0, 0, length, depth),
        Part(0.15, depth * 0.5, fin * 0.8, fin * 0.35, 0.6, 2, 2, 0.3, False),
        Part(length * 0.65, -depth * 0.2, 0.05, 0.05, 0, 2, 3, 0.0, False),
    )


def insect(rng: np.random.Generator) -> Parts:
    """Segments in a row, six legs, wings, feelers."""
    count, radius = int(rng.integers(2, 5)), _u(rng, 0.13, 0.26)
    xs = np.linspace(-0.6, 0.55, count)
    legs = [
        Part(x, 0.3, 0.02, 0.32, a, 4, 3, 0.3, False)
        for x, a in ((-0.35, 0.7), (-0.1, 0.3), (0.05, -0.1), (0.2, -0.4), (0.35, -0.7), (-0.2, 0.5))
    ]
    body = [
        Part(
            float(x),
            0.03 * i,
            radius * _u(rng, 0.9, 1.6),
            radius * _u(rng, 0.7, 1.1),
            _u(rng, -0.2, 0.2),
            2,
            i % 2,
        )
        for i, x in enumerate(xs)
    ]
    wing, long = _u(rng, 0.1, 0.25), _u(rng, 0.3, 0.65)
    wings = [Part(-0.15, -0.3, long, wing, a, 2, 2, 0.3, False) for a in (0.5, 0.9)]
    feeler = Part(0.75, -0.25, 0.02, _u(rng, 0.1, 0.35), 0.6, 4, 3, 0.2, False)
    return (*legs, wings[0], *body, wings[1], feeler)


def chain(rng: np.random.Generator) -> Parts:
    """A row of beads along a wave: snakes, worms, links."""
    count, wave, turns = int(rng.integers(10, 17)), _u(rng, 0.05, 0.3), _u(rng, 2.0, 5.0)
    xs = np.linspace(-0.9, 0.9, count)
    radius = np.linspace(_u(rng, 0.06, 0.12), _u(rng, 0.12, 0.2), count)
    return tuple(
        Part(float(x), float(wave * np.sin(turns * x)), float(r) * 1.3, float(r), 0.0, 2, i % 2, 0.2)
        for i, (x, r) in enumerate(zip(xs, radius, strict=True))
    )


def creature(rng: np.random.Generator) -> Parts:
    """A lumpy mirror-symmetric body with random pairs of limbs: anything not met before."""
    parts = [
        Part(0, _u(rng, -0.1, 0.1), _u(rng, 0.3, 0.5), _u(rng, 0.3, 0.55), 0, int(rng.choice([2, 2, 4])))
    ]
    for _ in range(int(rng.integers(1, 4))):
        x, y, rx, ry = _u(rng, 0.15, 0.45), _u(rng, -0.45, 0.5), _u(rng, 0.08, 0.36), _u(rng, 0.05, 0.25)
        angle, colour, patterned = _u(rng, -1.2, 1.2), int(rng.integers(0, 3)), bool(rng.random() < 0.6)
        back = rng.random() < 0.5
        pair = [Part(s * x, y, rx, ry, s * angle, 2, colour, 0.25, patterned) for s in (-1, 1)]
        parts = pair + parts if back else parts + pair
    parts.append(
        Part(0, _u(rng, -0.7, -0.3), _u(rng, 0.15, 0.32), _u(rng, 0.15, 0.3), 0, 2, int(rng.integers(0, 2)))
    )
    eye = _u(rng, 0.08, 0.16)
    return (*parts, *(Part(s * eye, parts[-1].y, 0.05, 0.06, 0, 2, 3, 0.0, False) for s in (-1, 1)))


def lute(rng: np.random.Generator) -> Parts:
    """Two bouts, neck, head, hole: stringed instruments."""
    low, high, gap = _u(rng, 0.28, 0.42), _u(rng, 0.18, 0.34), _u(rng, 0.25, 0.4)
    return (
        Part(0, -0.45, 0.05, 0.55, 0, 8, 1, 0.0, False),
        Part(0, -0.95, 0.09, 0.1, 0, 4, 2, 0.0, False),
        Part(0, 0.15, high, high * 0.9),
        Part(0, 0.15 + gap, low, low * 0.9),
        Part(0, _u(rng, 0.15, 0.35), 0.1, _u(rng, 0.06, 0.12), 0, 2, 3, 0.0, False),
        Part(0, 0.15 + gap, 0.16, 0.03, 0, 8, 1, 0.0, False),
        Part(0, -0.1, 0.012, 0.75, 0, 8, 2, 0.0, False),
    )


def pipe(rng: np.random.Generator) -> Parts:
    """A long tube with keys, a bend and a bell."""
    angle, thick, bell = _u(rng, -0.3, 0.3), _u(rng, 0.04, 0.12), _u(rng, 0.1, 0.34)
    keys = [
        Part(_u(rng, -0.02, 0.02), float(y), thick * 1.3, 0.03, angle, 4, 2, 0.0, False)
        for y in np.linspace(-0.45, 0.4, int(rng.integers(3, 7)))
    ]
    loop = Part(_u(rng, 0.05, 0.2), 0.1, _u(rng, 0.1, 0.26), _u(rng, 0.2, 0.42), 0, 4, 1, 0.0, True)
    return (loop, Part(0, 0, thick, 0.85, angle, 4), Part(0, 0.85, bell, bell * 0.5, 0, 2, 1), *keys)


def drum(rng: np.random.Generator) -> Parts:
    """A cylinder with a skin, rims and feet."""
    wide, tall, foot = _u(rng, 0.4, 0.75), _u(rng, 0.25, 0.6), _u(rng, 0.05, 0.35)
    legs = [Part(s * wide * 0.7, tall + foot * 0.5, 0.04, foot, 0.2 * s, 4, 3, 0.0, False) for s in (-1, 1)]
    rims = [Part(0, s * tall * 0.8, wide * 1.03, 0.06, 0, 4, 2, 0.0, False) for s in (-1, 1)]
    return (
        *legs,
        Part(0, 0.05, wide, tall, 0, 8),
        *rims,
        Part(0, -tall * 0.85, wide, _u(rng, 0.1, 0.2), 0, 2, 1, 0.0, False),
    )


def vehicle(rng: np.random.Generator) -> Parts:
    """Box body, cabin, windows, wheels."""
    tall, cabin = _u(rng, 0.14, 0.3), _u(rng, 0.15, 0.4)
    cx, cw = _u(rng, -0.4, 0.4), _u(rng, 0.25, 0.6)
    wheel, count = _u(rng, 0.12, 0.26), int(rng.integers(2, 5))
    xs = np.linspace(-0.62, 0.62, count)
    panes = [
        Part(cx + d * cw, 0.0 - tall - cabin * 0.55, cw * 0.36, cabin * 0.38, 0, 4, 1, 0.0, False)
        for d in (-0.45, 0.45)
    ]
    wheels = [Part(float(x), tall + 0.05, wheel, wheel, 0, 2, 3, 0.0, False) for x in xs]
    hubs = [Part(float(x), tall + 0.05, wheel * 0.45, wheel * 0.45, 0, 2, 1, 0.0, False) for x in xs]
    band = Part(0, _u(rng, -0.1, 0.1), 0.9, 0.05, 0, 8, 2, 0.0, False)
    return (
        Part(cx, -tall - cabin * 0.5, cw, cabin, 0, 4),
        *panes,
        Part(0, 0, 0.95, tall, 0, 8),
        band,
        *wheels,
        *hubs,
    )


def tool(rng: np.random.Generator) -> Parts:
    """A handle and a head, crossed."""
    angle, long, thick = _u(rng, -0.8, 0.8), _u(rng, 0.6, 0.9), _u(rng, 0.05, 0.12)
    dx, dy = float(np.sin(angle)), float(-np.cos(angle))
    head = Part(
        dx * long * 0.8,
        dy * long * 0.8,
        _u(rng, 0.15, 0.5),
        _u(rng, 0.08, 0.3),
        angle,
        int(rng.choice([2, 4, 8])),
        0,
    )
    knob = Part(-dx * long, -dy * long, thick * 1.8, thick * 1.4, angle, 2, 2, 0.0, False)
    return (Part(0, 0, thick, long, angle, 8, 1), knob, head)


def wheel(rng: np.random.Generator) -> Parts:
    """A disc with spokes or petals: gongs, fans, clocks, flowers."""
    count, reach = int(rng.integers(3, 9)), _u(rng, 0.3, 0.5)
    angles = np.arange(count) * (2 * np.pi / count)
    arms = tuple(
        Part(
            float(reach * np.sin(a)),
            float(-reach * np.cos(a)),
            _u(rng, 0.06, 0.08) * 2,
            reach,
            float(a),
            2,
            1,
        )
        for a in angles
    )
    disc = Part(0, 0, reach * 1.6, reach * 1.6 * _u(rng, 0.7, 1.0), 0, 2, 0)
    hub = Part(0, 0, reach * 0.5, reach * 0.5, 0, 2, 2, 0.0, False)
    return (disc, *arms, hub) if rng.random() < 0.5 else (*arms, hub)


def gadget(rng: np.random.Generator) -> Parts:
    """Boxes, dials and handles: household things."""
    wide, tall = _u(rng, 0.35, 0.75), _u(rng, 0.3, 0.65)
    handle = Part(_u(rng, -0.3, 0.3), 0.1 - tall, _u(rng, 0.1, 0.4), _u(rng, 0.1, 0.3), 0, 4, 1, 0.0, False)
    parts = [handle, Part(0, 0.1, wide, tall, 0, int(rng.choice([2, 4, 8])))]
    for _ in range(int(rng.integers(1, 5))):
        size = _u(rng, 0.06, 0.22)
        parts.append(
            Part(
                _u(rng, -0.3, 0.3),
                _u(rng, -0.2, 0.4),
                size,
                size * _u(rng, 0.5, 1.5),
                0,
                int(rng.choice([2, 8])),
                int(rng.integers(1, 4)),
                0.0,
                False,
            )
        )
    spout = Part(
        wide + 0.05, _u(rng, -0.2, 0.1), _u(rng, 0.1, 0.3), _u(rng, 0.04, 0.1), _u(rng, -0.9, 0.2), 4, 0
    )
    return (spout, *parts)


def cluster(rng: np.random.Generator) -> Parts:
    """Rounded lumps grown onto each other without a plan."""
    parts = [Part(0, 0, _u(rng, 0.2, 0.5), _u(rng, 0.2, 0.5), _u(rng, 0, 3), int(rng.choice([2, 2, 4, 8])))]
    for _ in range(int(rng.integers(2, 9))):
        host = parts[int(rng.integers(len(parts)))]
        way, reach = _u(rng, 0, 2 * np.pi), _u(rng, 0.7, 1.2)
        x = float(np.clip(host.x + reach * host.rx * np.cos(way), -0.8, 0.8))
        y = float(np.clip(host.y + reach * host.ry * np.sin(way), -0.8, 0.8))
        size, long = _u(rng, 0.06, 0.28), _u(rng, 0.4, 1.0)
        power, colour = int(rng.choice([2, 2, 4, 8])), int(rng.integers(0, 4))
        parts.append(Part(x, y, size, size * long, _u(rng, 0, 3), power, colour, 0.2, colour < 2))
    return tuple(parts)


PLANS: dict[str, Callable[[np.random.Generator], Parts]] = {
    "quadruped": quadruped, "bird": bird, "fish": fish, "insect": insect, "chain": chain,
    "creature": creature, "lute": lute, "pipe": pipe, "drum": drum, "vehicle": vehicle, "tool": tool,
    "wheel": wheel, "gadget": gadget, "cluster": cluster,
}  # fmt: skip
