"""From a scene to frames and a waveform.

F frames, H height, W width, n samples.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from .backdrop import draw_place
from .looks import draw_look
from .noise import noise_line
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
    backdrop = _to_image(draw_place(scene.place, rng, size + 2 * margin, size + 2 * margin))
    if rng.random() < 0.4:  # out of focus
        backdrop = backdrop.filter(ImageFilter.BoxBlur(float(rng.uniform(0.3, 0.02 * size))))
    views = []
    for thing in scene.seen:
        side = max(12, int(round(thing.size * size * 1.2)))
        view = _to_image(draw_look(thing.kind.look, rng, side, thing.angle, thing.flip))
        views.append((thing, view, rng.normal(0, 0.05), rng.normal(0, 0.04), rng.uniform(0, 6)))
    pan = rng.normal(0, 0.4, 2)
    tone, channel = _tone_curve(scene, rng), np.arange(3)
    grain = rng.integers(-3, 4, (size, size, 3), dtype=np.int8).astype(np.int16)
    out = np.empty((frames, size, size, 3), np.uint8)
    for index in range(frames):
        time = index / max(1, frames - 1) - 0.5
        left, top = (int(np.clip(round(margin * (1 + 2 * p * time)), 0, 2 * margin)) for p in pan)
        canvas = backdrop.crop((left, top, left + size, top + size)).convert("RGBA")
        for thing, view, turn, swell, phase in views:
            x, y = (thing.x + thing.dx * 2 * time) * size, (thing.y + thing.dy * 2 * time) * size
            angle, scale = 2 * turn * np.sin(phase + 4 * time), 1 + swell * np.sin(phase + 5 * time)
            canvas.alpha_composite(_laid_out(view, size, x, y, float(angle), float(scale)))
        out[index] = np.asarray(canvas.convert("RGB"))
        out[index] = np.clip(tone[out[index], channel] + np.roll(grain, 31 * index, axis=(0, 1)), 0, 255)
    return out


def _to_image(pixels: np.ndarray) -> Image.Image:
    """Floats in [0, 1] with three or four channels as an image."""
    return Image.fromarray((pixels * 255 + 0.5).astype(np.uint8))


def _tone_curve(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """What light and camera make of the 256 levels of each channel: (256, 3) int16."""
    level = np.arange(256) / 255
    cast = rng.normal(0, 0.03, 3)
    gamma, contrast = float(np.exp(rng.normal(0, 0.12))), float(rng.uniform(0.8, 1.15))
    lit = (level[:, None] * scene.exposure * scene.place.light + cast - 0.5) * contrast + 0.5
    return (np.clip(lit, 0, 1) ** gamma * 255 + 0.5).astype(np.int16)


def _laid_out(view: Image.Image, size: int, x: float, y: float, angle: float, scale: float) -> Image.Image:
    """The view centred on (x, y) of an otherwise clear picture, with sub-pixel shift, turn and scale."""
    c, s, half = np.cos(angle) / scale, np.sin(angle) / scale, view.width / 2
    affine = (c, s, half - c * x - s * y, -s, c, half + s * x - c * y)
    return view.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)


def render_sound(scene: Scene, rng: np.random.Generator, seconds: float) -> np.ndarray:
    """The sound side of `render`: (n,) float32, peak at most 0.95."""
    samples = int(round(seconds * RATE))
    wave = np.zeros(samples, np.float32)
    for heard in scene.heard:
        voice = synthesise(heard.kind.voice, rng, samples, heard.speed, heard.pitch)
        wave += voice * np.float32(10 ** (heard.gain_db / 20))
    if rng.random() < 0.4:
        wave = _echo(wave, rng)
    level = 0.1 * 10 ** ((scene.noise_db + scene.heard[0].gain_db) / 20)
    wave += np.float32(level) * noise_line(rng, samples, float(rng.uniform(0.0, 1.0)))
    peak = float(np.abs(wave).max())
    return wave * np.float32(min(1.0, 0.95 / (peak + 1e-9)))


def _echo(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add the tail of a room, as exponentially decaying noise: (n,)."""
    tail = int(RATE * rng.uniform(0.05, 0.4))
    decay = np.exp(-np.linspace(0, 5, tail, dtype=np.float32))
    response = decay * (rng.random(tail, dtype=np.float32) - np.float32(0.5))
    response *= np.float32(rng.uniform(0.1, 0.6)) / np.sqrt(np.sum(response**2))
    response[0] += 1.0
    length = len(wave) + RATE // 2
    return np.fft.irfft(np.fft.rfft(wave, length) * np.fft.rfft(response, length), length)[: len(wave)]
