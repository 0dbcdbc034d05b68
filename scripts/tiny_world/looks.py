"""Looks: what a thing looks like from every side, and drawing one view of it.

S sprite side in pixels, K parts of the body plan.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image

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


def rgb(code: str) -> Colour:
    """A colour from six hexadecimal digits."""
    red, green, blue = (int(code[at : at + 2], 16) / 255 for at in (0, 2, 4))
    return red, green, blue


def random_colour(rng: np.random.Generator) -> Colour:
    """An RGB colour; half of them muted like fur, feathers and wood, half vivid."""
    if rng.random() < 0.6:
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
        lumps=float(rng.uniform(0.0, 0.07)),
        seed=int(rng.integers(2**31)),
    )


def _pattern(look: Look, x: np.ndarray, y: np.ndarray, fields: np.ndarray) -> np.ndarray:
    """Share of the second colour at every point: (S, S) in [0, 1]."""
    c, s = float(np.cos(look.texture_angle)), float(np.sin(look.texture_angle))
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

    The view differs from others of the same look by pose (swinging parts), proportions, `angle` (radians) and
    `flip`.
    """
    grid = (np.arange(side, dtype=np.float32) + 0.5) * np.float32(2.4 / side) - np.float32(1.2)
    gx, gy = np.meshgrid(grid, grid)
    wide, tall = (1.0 + 0.06 * rng.standard_normal(2)).astype(np.float32)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x, y = (c * gx + s * gy) * wide, (c * gy - s * gx) * tall
    if flip:
        x = -x
    fields = _own_fields(look, side, (c * wide, s * wide, c * tall, -s * tall), flip)
    x = x + np.float32(look.lumps) * fields[0]
    y = y + np.float32(look.lumps) * fields[1]
    pattern = look.texture_strength * _pattern(look, x, y, fields)
    light = 1.0 + np.float32(look.grain * 0.7) * fields[2]
    weights = np.zeros((2, 4, side, side), np.float32)  # patterned or not, palette index
    left = np.ones((side, side), np.float32)  # share not yet covered, from front to back
    for part in reversed(look.parts):
        cover, relief = _cover(part, x, y, rng, side)
        cover *= left
        left -= cover
        weights[int(part.patterned), part.colour] += cover * (light + np.float32(look.shading) * relief)
    base, other = np.asarray(look.colours, np.float32), np.asarray(look.colours, np.float32)[[1, 2, 1, 1]]
    paints = np.concatenate([base, base, other])
    mixed = np.concatenate([weights[0], weights[1] * (1 - pattern), weights[1] * pattern])
    colour = np.tensordot(mixed, paints, axes=(0, 0))
    alpha = 1.0 - left[..., None]
    return np.concatenate([np.clip(colour / np.maximum(alpha, 1e-3), 0, 1), alpha], axis=-1)


def _own_fields(look: Look, side: int, turn: tuple[float, float, float, float], flip: bool) -> np.ndarray:
    """Noise that sticks to the thing, not to the picture: two smooth fields and a grainy one, (3, S, S).

    `turn` holds the factors of x and y in the thing's coordinates, as in `draw_look`.
    """
    own = np.random.default_rng(look.seed)
    size = 64
    step = size / 2.6 * 2.4 / side  # field cells per pixel; the field spans [-1.3, 1.3]
    cx, sx, cy, sy = (float(v) * step for v in turn)
    mirror = -1.0 if flip else 1.0
    half = side / 2
    affine = (
        mirror * cx, mirror * sx, size / 2 - mirror * (cx + sx) * half,
        sy, cy, size / 2 - (sy + cy) * half,
    )  # fmt: skip
    fields = np.empty((3, side, side), np.float32)
    for index, exponent in enumerate((2.2, 2.2, 0.9)):
        image = Image.fromarray(noise_field(own, size, size, exponent))
        moved = image.transform((side, side), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        fields[index] = np.asarray(moved)
    return fields


def _cover(
    part: Part, x: np.ndarray, y: np.ndarray, rng: np.random.Generator, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (S, S) in [0, 1] and relief (S, S) in [-1, 1], lit from above, of one part.

    The edge is anti-aliased by the distance to the outline, (1 - r) / |grad r|.
    """
    turn = part.angle + part.swing * float(rng.uniform(-1, 1))
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    dx, dy = x - np.float32(part.x), y - np.float32(part.y)
    u = ((c * dx + s * dy) * np.float32(1 / part.rx)) ** 2
    v = ((c * dy - s * dx) * np.float32(1 / part.ry)) ** 2
    steep_u, steep_v, power = u, v, 2
    while power < part.power:
        u, v = u * u, v * v
        steep_u, steep_v, power = steep_u * u, steep_v * v, power * 2
    radius = u + v + np.float32(1e-9)  # radius^power so far
    for _ in range(part.power.bit_length() - 1):
        radius = np.sqrt(radius)
    steepness = np.sqrt(
        steep_u * np.float32(part.rx**-2) + steep_v * np.float32(part.ry**-2) + np.float32(1e-9)
    )
    steepness /= radius ** (part.power - 1)  # length of the gradient of radius
    cover = np.clip((1.0 - radius) / (steepness + np.float32(1e-3)) * np.float32(side / 2.4) + 0.5, 0.0, 1.0)
    relief = (
        dy * np.float32(-1.0 / max(part.rx, part.ry)) - 0.5 * np.minimum(radius, 1.0) ** 2 + np.float32(0.2)
    )
    return cover, np.clip(relief, -1, 1)
