"""Random textures with natural (power-law) spectra.

H height, W width.
"""

from __future__ import annotations

import numpy as np


def noise_field(
    rng: np.random.Generator, height: int, width: int, exponent: float = 1.0, stretch: float = 1.0
) -> np.ndarray:
    """Gaussian noise whose amplitude falls as 1 / f^exponent: (H, W) float32, mean 0, standard deviation 1.

    `stretch` > 1 lengthens the grain horizontally, < 1 vertically. Photographs of nature have an exponent near 1
    (Field, 1987, J. Opt. Soc. Am. A 4(12)). Frequencies are in cycles per field, so the look is independent of the size.
    """
    fy = np.fft.fftfreq(height, 1.0 / height).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(width, 1.0 / width).astype(np.float32)[None, :]
    squared = fx * fx * stretch + fy * fy / stretch
    squared[0, 0] = 1.0
    amplitude = squared ** np.float32(-0.5 * exponent)
    amplitude[0, 0] = 0.0
    # The field is periodic; callers that must not see the seam draw it larger and crop.
    draws = rng.standard_normal((2, height, width // 2 + 1), dtype=np.float32)
    field = np.fft.irfft2((draws[0] + 1j * draws[1]) * amplitude, s=(height, width)).astype(np.float32)
    return field / (field.std() + 1e-6)


def smooth_step(values: np.ndarray, edge: float = 0.0, softness: float = 1.0) -> np.ndarray:
    """0 below `edge`, 1 above, with a linear ramp of width `softness`; same shape."""
    return np.clip((values - edge) / softness + 0.5, 0.0, 1.0)
