"""From a scene to frames and a waveform.

F frames, H height, W width, n samples.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from .backdrop import draw_place
from .looks import draw_look
from .noise import noise_field
from .scene import Scene
from .voices import RATE, synthesise


def render(
    scene: Scene, rng: np.random.Generator, size: int = 96, frames: int = 4, seconds: float = 3.0
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (F, H, W, 3) uint8 and a waveform (n,) float32 in [-1, 1] at 16 kHz.

    The same scene with another generator state is another view and another recording of it.
    """
    return render_frames(scene, rng, size, frames), render_sound(scene, rng, seconds)


def render_frames(scene: Scene, rng: np.random.Generator, size: int, frames: int) -> np.ndarray:
    """The picture side of `render`: (F, H, W, 3) uint8."""
    margin = max(2, size // 16)
    backdrop = draw_place(scene.place, rng, size + 2 * margin, size + 2 * margin)
    sprites = []
    for thing in scene.seen:
        side = max(12, int(round(thing.size * size * 1.2)))
        view = draw_look(thing.kind.look, rng, side, thing.angle, thing.flip)
        view[..., :3] *= view[..., 3:]  # premultiplied, so that warping keeps clean edges
        sprites.append(
            (thing, view, float(rng.normal(0, 0.05)), float(rng.normal(0, 0.04)), float(rng.uniform(0, 6)))
        )
    pan = rng.normal(0, 0.4, 2)
    camera = rng.normal(0, 0.03, 3).astype(np.float32)
    gamma, contrast = float(np.exp(rng.normal(0, 0.12))), float(rng.uniform(0.8, 1.15))
    out = np.empty((frames, size, size, 3), np.uint8)
    for index in range(frames):
        time = index / max(1, frames - 1) - 0.5
        oy, ox = (int(np.clip(round(margin * (1 + 2 * p * time)), 0, 2 * margin)) for p in pan)
        canvas = backdrop[oy : oy + size, ox : ox + size].copy()
        for thing, view, turn, swell, phase in sprites:
            angle = 2 * turn * np.sin(phase + 4 * time)
            x = (thing.x + thing.dx * 2 * time) * size
            y = (thing.y + thing.dy * 2 * time) * size
            _blend(canvas, view, x, y, angle, 1 + swell * np.sin(phase + 5 * time))
        canvas = (canvas * np.float32(scene.exposure * scene.place.light) + camera - 0.5) * np.float32(
            contrast
        ) + 0.5
        canvas = np.clip(canvas, 0, 1) ** np.float32(gamma)
        canvas += np.float32(0.012) * rng.standard_normal(canvas.shape, dtype=np.float32)
        out[index] = (np.clip(canvas, 0, 1) * 255 + 0.5).astype(np.uint8)
    return out


def _blend(canvas: np.ndarray, view: np.ndarray, x: float, y: float, angle: float, scale: float) -> None:
    """Lay a premultiplied view over the canvas, in place, centred on (x, y) with sub-pixel shift, turn and scale."""
    side = view.shape[0]
    left, top = int(np.floor(x - side / 2)), int(np.floor(y - side / 2))
    cx, cy = x - left, y - top  # where the centre of the view falls in the patch
    c, s, half = np.cos(angle) / scale, np.sin(angle) / scale, side / 2
    affine = (c, s, half - c * cx - s * cy, -s, c, half + s * cx - c * cy)
    image = Image.fromarray((view * 255 + 0.5).astype(np.uint8), "RGBA")
    patch = (
        np.asarray(
            image.transform((side + 1, side + 1), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR),
            np.float32,
        )
        / 255
    )
    y0, y1 = max(0, top), min(canvas.shape[0], top + side + 1)
    x0, x1 = max(0, left), min(canvas.shape[1], left + side + 1)
    if y0 >= y1 or x0 >= x1:
        return
    patch = patch[y0 - top : y1 - top, x0 - left : x1 - left]
    target = canvas[y0:y1, x0:x1]
    target *= 1 - patch[..., 3:]
    target += patch[..., :3]


def render_sound(scene: Scene, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """The sound side of `render`: (n,) float32, peak at most 0.95."""
    samples = int(round(seconds * RATE))
    wave = np.zeros(samples, np.float32)
    for heard in scene.heard:
        wave += synthesise(heard.kind.voice, rng, samples, heard.speed, heard.pitch) * np.float32(
            10 ** (heard.gain_db / 20)
        )
    level = 0.1 * 10 ** (scene.noise_db / 20)
    exponent = float(rng.uniform(0.0, 1.0))
    wave += np.float32(level) * noise_field(rng, 1, samples, exponent)[0]
    peak = float(np.abs(wave).max())
    return wave * np.float32(min(1.0, 0.95 / (peak + 1e-9)))
