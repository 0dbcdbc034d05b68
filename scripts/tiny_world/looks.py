"""Looks: what a thing looks like from every side, and drawing one view of it.

S sprite side in pixels, K parts of the body plan.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .noise import noise_field, smooth_step
from .plans import PLANS, Part

TEXTURES = ("plain", "stripes", "spots", "patches", "fur", "bands", "net")
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Look:
    """Everything that stays the same between two views of a thing."""

    plan: str  # key of PLANS, for captions
    parts: tuple[Part, ...]
    colours: tuple[Colour, Colour, Colour, Colour]  # main, second, third, dark
    texture: str  # one of TEXTURES
    texture_scale: float  # periods across the thing
    texture_strength: float  # 0 none to 1 full second colour
    texture_angle: float  # radians
    grain: float  # strength of the 1/f grain
    shading: float  # light from above, 0 to 1
    lumps: float  # irregularity of the outline
    seed: int  # of pattern and outline


def random_colour(rng: np.random.Generator) -> Colour:
    """An RGB colour; half of them muted like fur, feathers and wood, half vivid."""
    if rng.random() < 0.5:
        hue, saturation, value = rng.uniform(0.02, 0.15), rng.uniform(0.05, 0.65), rng.uniform(0.08, 0.95)
    else:
        hue, saturation, value = rng.uniform(0, 1), rng.uniform(0.4, 1.0), rng.uniform(0.3, 1.0)
    return colorsys.hsv_to_rgb(float(hue), float(saturation), float(value))


def random_look(rng: np.random.Generator, plan: str | None = None, colours: tuple[Colour, ...] = ()) -> Look:
    """A look from the unbounded family; `plan` and the first colours may be given."""
    plan = plan or str(rng.choice(list(PLANS)))
    palette = [*colours, *(random_colour(rng) for _ in range(3))][:3]
    dark = tuple(float(v) for v in rng.uniform(0.0, 0.15, 3))
    return Look(
        plan=plan,
        parts=PLANS[plan](rng),
        colours=(palette[0], palette[1], palette[2], (dark[0], dark[1], dark[2])),
        texture=str(rng.choice(TEXTURES)),
        texture_scale=float(rng.uniform(3, 12)),
        texture_strength=float(rng.uniform(0.4, 1.0)),
        texture_angle=float(rng.uniform(0, np.pi)),
        grain=float(rng.uniform(0.03, 0.3)),
        shading=float(rng.uniform(0.1, 0.6)),
        lumps=float(rng.uniform(0.0, 0.12)),
        seed=int(rng.integers(2**31)),
    )


def _pattern(look: Look, x: np.ndarray, y: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Share of the second colour at every point: (S, S) in [0, 1]."""
    c, s = np.cos(look.texture_angle), np.sin(look.texture_angle)
    along = (c * x + s * y) * look.texture_scale * np.pi
    across = (c * y - s * x) * look.texture_scale * np.pi
    if look.texture == "stripes":
        return smooth_step(np.sin(along + 1.5 * fields[0]), 0.1, 0.6)
    if look.texture == "bands":
        return smooth_step(np.sin(along), 0.0, 0.3)
    if look.texture == "spots":
        return smooth_step(np.sin(along + 1.2 * fields[0]) * np.sin(across + 1.2 * fields[1]), 0.3, 0.25)
    if look.texture == "patches":
        return smooth_step(fields[0], 0.2, 0.25)
    if look.texture == "net":
        return smooth_step(np.abs(np.sin(along)) * np.abs(np.sin(across)), 0.25, 0.3)
    if look.texture == "fur":
        return np.clip(0.5 + 0.35 * np.sin(3 * along + 4 * fields[1]) + 0.15 * fields[0], 0, 1)
    return np.clip(0.3 + 0.2 * fields[0] + 0.3 * y, 0, 1)  # plain: a soft counter-shade


def draw_look(
    look: Look, rng: np.random.Generator, side: int, angle: float = 0.0, flip: bool = False
) -> np.ndarray:
    """One view: (S, S, 4) float32 RGBA in [0, 1], not premultiplied, edges anti-aliased.

    The view differs from others of the same look by pose (swinging parts), proportions, `angle` (radians) and `flip`.
    """
    grid = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(2.4 / side) - np.float32(1.2)
    gx, gy = np.meshgrid(grid, grid)
    wide, tall = (1.0 + 0.06 * rng.standard_normal(2)).astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = (c * gx + s * gy) * wide, (c * gy - s * gx) * tall
    if flip:
        x = -x
    own = np.random.default_rng(look.seed)
    fields = np.stack([noise_field(own, 64, 64, e) for e in (1.6, 1.6, 0.8)])
    rows = np.clip(((y + 1.3) * (63 / 2.6)).astype(np.int32), 0, 63)
    columns = np.clip(((x + 1.3) * (63 / 2.6)).astype(np.int32), 0, 63)
    fields = fields[:, rows, columns]  # the outline and pattern belong to the thing, not to the picture
    x = x + np.float32(look.lumps) * fields[0]
    y = y + np.float32(look.lumps) * fields[1]
    pattern = look.texture_strength * _pattern(look, x, y, fields)
    palette = np.asarray(look.colours, dtype=np.float32)
    colour = np.zeros((side, side, 3), np.float32)
    alpha = np.zeros((side, side), np.float32)
    for part in look.parts:
        cover, relief = _cover(part, x, y, rng, side)
        base = palette[part.colour]
        light = (1.0 + look.shading * relief + look.grain * 0.5 * fields[2])[..., None]
        paint = base + (
            pattern[..., None] * (palette[1 if part.colour != 1 else 2] - base) if part.patterned else 0.0
        )
        colour += cover[..., None] * (paint * light - colour)
        alpha += cover * (1.0 - alpha)
    return np.concatenate([np.clip(colour, 0, 1), alpha[..., None]], axis=-1)


def _cover(
    part: Part, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (S, S) in [0, 1] and relief (S, S) in about [-1, 1], lit from above, of one part."""
    turn = part.angle + part.swing * float(rng.uniform(-1, 1))
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = x - np.float32(part.x), y - np.float32(part.y)
    u = ((c * dx + s * dy) / np.float32(part.rx)) ** 2
    v = ((c * dy - s * dx) / np.float32(part.ry)) ** 2
    power = part.power
    while power > 2:
        u, v, power = u * u, v * v, power // 2
    radius = (u + v) ** np.float32(1.0 / part.power)
    thin = min(part.rx, part.ry)
    cover = np.clip((1.0 - radius) * np.float32(thin * side / 2.4) + 0.5, 0.0, 1.0)
    relief = -dy / np.float32(max(part.rx, part.ry)) - 0.5 * np.minimum(radius, 1.0) ** 2 + 0.2
    return cover, np.clip(relief, -1, 1)
