"""Random textures with natural (power-law) spectra.

H height, W width, n length.
"""

from __future__ import annotations

import numpy as np


def noise_field(
    rng: np.random.Generator, height: int, width: int, exponent: float = 1.0, stretch: float = 1.0
) -> np.ndarray:
    """Nearly Gaussian noise whose amplitude falls as 1 / f^exponent: (H, W) float32, mean 0, deviation 1.

    `stretch` > 1 lengthens the grain horizontally, < 1 vertically. Photographs of nature have an exponent
    near 1 (Field, 1987, J. Opt. Soc. Am. A 4(12)). Frequencies are in cycles per field, so the look is
    independent of the size. The field is periodic: left and right edge fit, top and bottom too.
    """
    fy = np.fft.fftfreq(height, 1.0 / height).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(width, 1.0 / width).astype(np.float32)[None, :]
    squared = fx * fx * np.float32(stretch) + fy * fy / np.float32(stretch)
    squared[0, 0] = 1.0
    amplitude = squared ** np.float32(-0.5 * exponent)
    amplitude[0, 0] = 0.0
    draws = rng.random((height, width // 2 + 1, 2), dtype=np.float32) - np.float32(0.5)
    draws *= amplitude[..., None]
    field = np.fft.irfft2(draws.view(np.complex64)[..., 0], s=(height, width))
    return field / (field.std() + np.float32(1e-12))


def noise_line(rng: np.random.Generator, length: int, exponent: float = 1.0) -> np.ndarray:
    """One-dimensional `noise_field`: (n,) float32."""
    frequency = np.arange(length // 2 + 1, dtype=np.float32)
    frequency[0] = 1.0
    amplitude = frequency ** np.float32(-exponent)
    amplitude[0] = 0.0
    draws = rng.random((len(frequency), 2), dtype=np.float32) - np.float32(0.5)
    draws *= amplitude[:, None]
    line = np.fft.irfft(draws.view(np.complex64)[:, 0], length)
    return line / (line.std() + np.float32(1e-12))


def smooth_step(values: np.ndarray, edge: float = 0.0, softness: float = 1.0) -> np.ndarray:
    """0 below `edge`, 1 above, with a linear ramp of width `softness`; same shape."""
    return np.clip((values - edge) * (1.0 / softness) + 0.5, 0.0, 1.0)
