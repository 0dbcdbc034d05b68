"""New scenes from the bank: things pasted over places, voices mixed with each other and with noise.

Two mixtures of the same thing share nothing but the thing: view, place, position, size, side, turn, light,
camera, part and speed of the recording, level and noise are drawn anew.

Letters: B scenes, F frames or mel bins, S pixels of a frame, P patches, T fbank frames; 2 things or voices
per scene at most (-1: none).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from model.encoders.audio import FBANK_MEAN, FBANK_STD, MEL_BINS, normalised_fbank
from scripts.make_tiny_backbone.bank import Bank
from scripts.make_tiny_backbone.sizes import (
    AUDIO_FRAMES,
    AUDIO_SAMPLES,
    CLIP_MEAN,
    CLIP_STD,
    IMAGE_PIXELS,
    PATCH_PIXELS,
)

NOISES = 96  # stored stretches of coloured noise
FLOOR = torch.finfo(torch.float32).eps  # of mel power
SILENCE = (math.log(FLOOR) - FBANK_MEAN) / (2 * FBANK_STD)


@dataclass(frozen=True)
class Pictures:
    """Frames of B scenes and where their things are."""

    pixels: Tensor  # (B, F, 3, S, S) float32, normalised as CLIP's
    cover: Tensor  # (B, 2, P) share of each patch that a thing fills, mean over frames
    centre: Tensor  # (B, 2) horizontal position of each thing, -1 left to 1 right


@dataclass(frozen=True)
class Sounds:
    """Input of the audio tower for B scenes."""

    fbank: Tensor  # (B, T, F) float32, normalised as the audio tower does
    padding: Tensor  # (B, T) bool, True after the end of the clip


def uniform(gen: torch.Generator, shape: tuple[int, ...], low: float, high: float) -> Tensor:
    """Uniform numbers in [low, high)."""
    return torch.rand(shape, generator=gen) * (high - low) + low


class Mixer:
    """Draws mixtures; every random number comes from the generator that is passed in."""

    def __init__(self, bank: Bank, seed: int) -> None:
        self.bank = bank
        gen = torch.Generator().manual_seed(seed)
        white = torch.randn(NOISES, AUDIO_SAMPLES // 2 + 1, 2, generator=gen)
        slope = torch.arange(white.shape[1]).clamp(min=20)[None] ** -uniform(gen, (NOISES, 1), 0.0, 1.0)
        noise = torch.fft.irfft(torch.view_as_complex(white) * slope, n=AUDIO_SAMPLES)
        fbank = normalised_fbank(noise * (0.1 / noise.std(-1, keepdim=True)))
        self.noise = (fbank * (2 * FBANK_STD) + FBANK_MEAN).exp()  # mel power (NOISES, T, F)
        self.mean = torch.tensor(CLIP_MEAN).view(3, 1, 1)
        self.std = torch.tensor(CLIP_STD).view(3, 1, 1)

    def pictures(self, gen: torch.Generator, seen_B2: Tensor, place_B: Tensor, frames: int = 1) -> Pictures:
        """Paste the things `seen_B2` (kind numbers, -1 none) over the places."""
        batch = len(place_B)
        canvas = self._places(gen, place_B, frames)  # (B*F, 3, S, S)
        both = (seen_B2 >= 0).all(1, keepdim=True)
        half_size = uniform(gen, (batch, 2), 0.45, 1.05) * torch.where(both, 0.6, 1.0)
        order = torch.where(torch.rand(batch, 1, generator=gen) < 0.5, 1.0, -1.0)
        slots = torch.tensor([-0.48, 0.48]) * order + uniform(gen, (batch, 2), -0.2, 0.2)
        cx = torch.where(both, slots, uniform(gen, (batch, 2), -0.5, 0.5))
        cy = uniform(gen, (batch, 2), -0.2, 0.45)
        covers = []
        for index in (0, 1):
            layer = self._layer(
                gen, seen_B2[:, index], cx[:, index], cy[:, index], half_size[:, index], frames
            )
            alpha = layer[:, 3:]
            canvas = canvas * (1 - alpha) + layer[:, :3]
            patches = F.avg_pool2d(alpha, PATCH_PIXELS).flatten(1).unflatten(0, (batch, frames)).mean(1)
            covers = [c * (1 - patches) for c in covers] + [patches]
        pixels = self._camera(gen, canvas, batch, frames)
        return Pictures(pixels, torch.stack(covers, 1), cx)

    def _places(self, gen: torch.Generator, place_B: Tensor, frames: int) -> Tensor:
        """Crops of the places, (B*F, 3, S, S): zoom, shift and flip per scene, a slow pan over its frames."""
        batch = len(place_B)
        view_B = torch.randint(self.bank.places.shape[1], (batch,), generator=gen)
        stored = self.bank.places[place_B.numpy(), view_B.numpy()]
        image = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
        zoom = uniform(gen, (batch,), 0.62, 1.0)
        flip = torch.where(torch.rand(batch, generator=gen) < 0.5, -1.0, 1.0)
        room = 1 - zoom
        shift = uniform(gen, (batch, 2), -1, 1) * room[:, None]
        pan = uniform(gen, (batch, 2), -0.04, 0.04)
        theta = torch.zeros(batch, frames, 2, 3)
        time = torch.linspace(-1, 1, frames) if frames > 1 else torch.zeros(1)
        theta[:, :, 0, 0] = (zoom * flip)[:, None]
        theta[:, :, 1, 1] = zoom[:, None]
        theta[:, :, :, 2] = shift[:, None] + pan[:, None] * time[:, None]
        grid = F.affine_grid(
            theta.flatten(0, 1), [batch * frames, 3, IMAGE_PIXELS, IMAGE_PIXELS], align_corners=False
        )
        image = image.repeat_interleave(frames, 0)
        return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)

    def _layer(
        self, gen: torch.Generator, kind_B: Tensor, cx: Tensor, cy: Tensor, half: Tensor, frames: int
    ) -> Tensor:
        """One thing per scene on an empty frame: premultiplied RGBA (B*F, 4, S, S); zero for kind -1."""
        batch = len(kind_B)
        view_B = torch.randint(self.bank.sprites.shape[1], (batch,), generator=gen)
        stored = self.bank.sprites[kind_B.clamp(min=0).numpy(), view_B.numpy()]
        image = torch.from_numpy(stored).permute(0, 3, 1, 2).float() / 255
        image = torch.cat([image[:, :3] * image[:, 3:], image[:, 3:]], 1)
        image = image * (kind_B >= 0).float().view(-1, 1, 1, 1)
        turn = torch.randn(batch, generator=gen) * 0.15
        flip = torch.where(torch.rand(batch, generator=gen) < 0.5, -1.0, 1.0)
        stretch = torch.exp(torch.randn(batch, generator=gen) * 0.08)
        move = torch.randn(batch, 2, generator=gen) * 0.06
        time = torch.linspace(-1, 1, frames) if frames > 1 else torch.zeros(1)
        x = cx[:, None] + move[:, :1] * time
        y = cy[:, None] + move[:, 1:] * time
        a, b = turn.cos() / half * stretch * flip, turn.sin() / half * stretch * flip
        c, d = -turn.sin() / half / stretch, turn.cos() / half / stretch
        theta = torch.zeros(batch, frames, 2, 3)
        theta[..., 0, 0], theta[..., 0, 1] = a[:, None], b[:, None]
        theta[..., 1, 0], theta[..., 1, 1] = c[:, None], d[:, None]
        theta[..., 0, 2] = -(a[:, None] * x + b[:, None] * y)
        theta[..., 1, 2] = -(c[:, None] * x + d[:, None] * y)
        shape = [batch * frames, 4, IMAGE_PIXELS, IMAGE_PIXELS]
        grid = F.affine_grid(theta.flatten(0, 1), shape, align_corners=False)
        return F.grid_sample(image.repeat_interleave(frames, 0), grid, align_corners=False)

    def _camera(self, gen: torch.Generator, canvas: Tensor, batch: int, frames: int) -> Tensor:
        """Exposure, tint, contrast and grain, then CLIP's normalisation: (B, F, 3, S, S)."""
        frame = canvas.unflatten(0, (batch, frames))
        gain = torch.exp(torch.randn(batch, 1, 1, 1, 1, generator=gen) * 0.15)
        tint = torch.randn(batch, 1, 3, 1, 1, generator=gen) * 0.03
        contrast = uniform(gen, (batch, 1, 1, 1, 1), 0.8, 1.2)
        frame = (frame * gain + tint - 0.5) * contrast + 0.5
        frame = frame + torch.randn(frame.shape, generator=gen) * uniform(gen, (batch, 1, 1, 1, 1), 0.0, 0.03)
        return (frame.clamp(0, 1) - self.mean) / self.std

    def sounds(self, gen: torch.Generator, heard_B2: Tensor, second_db_B: Tensor) -> Sounds:
        """Mix voice 0 with voice 1 (-1: none; at `second_db_B`) and noise; half to all of the window.

        Powers are added mel bin by mel bin, which leaves out interference and costs a hundredth of adding
        waveforms.
        """
        batch = len(heard_B2)
        rng = np.random.default_rng(int(torch.randint(2**62, (1,), generator=gen)))
        power = self._voices(rng, heard_B2[:, 0])
        if bool((heard_B2[:, 1] >= 0).any()):
            power = power + self._voices(rng, heard_B2[:, 1]) * 10 ** (second_db_B[:, None, None] / 10)
        level = 10 ** (uniform(gen, (batch, 1, 1), -38.0, -12.0) / 10)
        row = torch.randint(NOISES, (batch,), generator=gen)
        power = power + self.noise[row].roll(int(torch.randint(AUDIO_FRAMES, (1,), generator=gen)), 1) * level
        gain = 10 ** (uniform(gen, (batch, 1, 1), -14.0, 6.0) / 10)
        fbank = ((power * gain).clamp(min=FLOOR).log() - FBANK_MEAN) / (2 * FBANK_STD)
        length = torch.randint(AUDIO_FRAMES // 2, AUDIO_FRAMES + 1, (batch, 1), generator=gen)
        padding = torch.arange(AUDIO_FRAMES)[None] >= length
        return Sounds(fbank.masked_fill(padding[..., None], SILENCE), padding)

    def _voices(self, rng: np.random.Generator, kind_B: Tensor) -> Tensor:
        """Mel power of a part of a recording of each kind (B, T, F); zero for kind -1."""
        out = np.full((len(kind_B), AUDIO_FRAMES, MEL_BINS), -9.0, np.float16)
        for row, kind in enumerate(kind_B.tolist()):
            if kind >= 0:
                out[row] = self._voice(rng, kind)
        return (torch.from_numpy(out).float() * (2 * FBANK_STD) + FBANK_MEAN).exp()

    def _voice(self, rng: np.random.Generator, kind: int) -> np.ndarray:
        """A part of a recording (T, F); one in five is a short part repeated with gaps."""
        stored = self.bank.sounds[kind, rng.integers(self.bank.sounds.shape[1])]
        part = int(rng.integers(25, 130)) if rng.random() < 0.2 else AUDIO_FRAMES
        start = int(rng.integers(len(stored) - part))
        value = stored[start : start + part]
        if part == AUDIO_FRAMES:
            return value
        gap = np.full((int(rng.integers(5, 60)), MEL_BINS), -9.0, np.float16)
        lap = np.concatenate([value, gap])
        return np.tile(lap, (AUDIO_FRAMES // len(lap) + 1, 1))[:AUDIO_FRAMES]
