"""How well a number tells two kinds of samples apart, and how far confidence can be trusted.

Letters: N samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auroc(near: ArrayLike, far: ArrayLike) -> float:
    """Probability that a far sample has the larger value, ties counting half (Mann and Whitney 1947).

    Raises:
        ValueError: one side is empty, or a value is not a number.
    """
    near_N, far_N = _values(near), _values(far)
    ordered = np.sort(near_N)
    below = np.searchsorted(ordered, far_N, "left")
    up_to = np.searchsorted(ordered, far_N, "right")
    return float((below + up_to).mean() / (2 * len(near_N)))


def coverage(near: ArrayLike, far: ArrayLike, alarms: float = 0.05) -> float:
    """Share of far samples beyond the lowest threshold that at most the share `alarms` of near ones exceeds.

    Raises:
        ValueError: as `auroc`, or a share outside [0, 1).
    """
    if not 0 <= alarms < 1:
        raise ValueError(f"alarms: got {alarms}, expected a share in [0, 1)")
    near_N, far_N = np.sort(_values(near)), _values(far)
    threshold = near_N[len(near_N) - 1 - int(alarms * len(near_N))]
    return float((far_N > threshold).mean())


@dataclass(frozen=True)
class Bin:
    """Samples of about the same confidence."""

    confidence: float  # mean
    accuracy: float  # share that was right
    n: int


@dataclass(frozen=True)
class Calibration:
    """Whether samples of confidence p are right in the share p of cases."""

    ece: float  # sum over bins of n / N |accuracy - confidence| (Guo et al. 2017)
    bins: tuple[Bin, ...]  # of equal width in confidence; empty ones are left out


def calibration(
    confidence: ArrayLike, right: Sequence[bool] | NDArray[np.bool_], bins: int = 10
) -> Calibration:
    """Expected calibration error and the reliability diagram behind it.

    Raises:
        ValueError: no samples, unequal numbers, or a confidence outside [0, 1].
    """
    confidence_N, right_N = _values(confidence), np.asarray(right, dtype=float)
    if len(confidence_N) != len(right_N) or confidence_N.min() < 0 or confidence_N.max() > 1:
        raise ValueError(
            f"{len(confidence_N)} confidences for {len(right_N)} samples; expected one each in [0, 1]"
        )
    place_N = np.minimum((confidence_N * bins).astype(int), bins - 1)
    found = [
        Bin(float(confidence_N[own].mean()), float(right_N[own].mean()), int(own.sum()))
        for own in (place_N == place for place in range(bins))
        if own.any()
    ]
    ece = sum(one.n * abs(one.accuracy - one.confidence) for one in found) / len(confidence_N)
    return Calibration(ece, tuple(found))


def _values(numbers: ArrayLike) -> NDArray[np.float64]:
    found = np.asarray(numbers, dtype=np.float64)
    if found.ndim != 1 or not len(found) or np.isnan(found).any():
        raise ValueError(f"got numbers of shape {found.shape}; expected at least one, none of them NaN")
    return found
