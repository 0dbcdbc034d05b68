"""Scores of dense tasks, accumulated over batches: segmentation, depth, surface normals; and delta-m.

Letters: B images, C classes, H, W pixels. Ignored labels are -1; depth 0 and normal (0, 0, 0) mean that
nothing was measured. A score over no pixel at all is NaN (null in result files).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# Column -> whether more is better, in the order of the paper's table.
HIGHER_IS_BETTER: dict[str, dict[str, bool]] = {
    "segmentation": {"mIoU": True, "pixAcc": True},
    "depth": {"abs_err": False, "rel_err": False},
    "normal": {"mean": False, "median": False, "<11.25": True, "<22.5": True, "<30": True},
}
ANGLES = (11.25, 22.5, 30.0)
DELTA_M = (
    "100 mean_t mean_j s_tj (M_tj - B_tj) / B_tj; s = 1 where higher is better, else -1; positive = better"
)


class Scores(Protocol):
    """What the score of a task can do."""

    def update(self, predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """Take in one batch."""

    def result(self) -> dict[str, float]:
        """Name -> score over everything taken in."""


class SegmentationScores:
    """mIoU over the classes that occur in truth or prediction, and pixel accuracy; one confusion matrix."""

    def __init__(self, classes: int) -> None:
        self.confusion = np.zeros((classes, classes), dtype=np.int64)  # rows: truth

    def update(self, predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """predicted: scores (B, C, H, W) or class numbers (B, H, W); truth: (B, H, W), -1 ignored."""
        chosen = predicted.argmax(1) if predicted.ndim == 4 else predicted.astype(np.int64)
        labels, classes = truth.astype(np.int64), len(self.confusion)
        known = labels >= 0
        if known.any() and labels.max() >= classes:
            raise ValueError(f"label {labels.max()}, but there are {classes} classes, 0 to {classes - 1}")
        pairs = classes * labels[known] + chosen[known]
        self.confusion += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def result(self) -> dict[str, float]:
        """mIoU and pixAcc, 0 to 1."""
        right, total = np.diag(self.confusion), self.confusion.sum()
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        occurs = union > 0
        iou = right[occurs] / union[occurs]
        return {"mIoU": _mean(iou), "pixAcc": float(right.sum() / total) if total else float("nan")}


class DepthScores:
    """Mean absolute error and mean error relative to the truth, over the measured pixels."""

    def __init__(self) -> None:
        self._sums, self._count = np.zeros(2), 0

    def update(self, predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """Both (B, 1, H, W), metres."""
        mask = _measured(truth)
        depth = truth[mask].astype(np.float64)
        error = np.abs(predicted[mask].astype(np.float64) - depth)
        self._sums += [error.sum(), (error / np.abs(depth)).sum()]
        self._count += depth.size

    def result(self) -> dict[str, float]:
        """abs_err in metres, rel_err as a share."""
        mean = self._sums / self._count if self._count else np.full(2, np.nan)
        return {"abs_err": float(mean[0]), "rel_err": float(mean[1])}


class NormalScores:
    """Angle between predicted and true normal in degrees, pooled over the measured pixels of all images."""

    def __init__(self) -> None:
        self._angles: list[NDArray[np.float32]] = []

    def update(self, predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> None:
        """Both (B, 3, H, W); predictions need not have length 1."""
        mask = _measured(truth)[:, 0]
        length = np.sqrt((predicted.astype(np.float64) ** 2).sum(1)).clip(1e-12)
        cosine = ((predicted * truth).sum(1) / length)[mask].clip(-1, 1)
        self._angles.append(np.degrees(np.arccos(cosine)).astype(np.float32))

    def result(self) -> dict[str, float]:
        """mean and median in degrees, shares of pixels within 11.25, 22.5 and 30 degrees."""
        angles = np.concatenate(self._angles) if self._angles else np.zeros(0, np.float32)
        median = float(np.median(angles)) if angles.size else float("nan")
        within = {f"<{limit:g}": _mean(angles < limit) for limit in ANGLES}
        return {"mean": _mean(angles), "median": median, **within}


@dataclass
class MeanLoss:
    """Losses averaged over batches, each weighted with its number of images."""

    total: float = 0.0
    images: int = 0

    def update(self, loss: float, images: int) -> None:
        """Take in the loss of one batch."""
        self.total += loss * images
        self.images += images

    def result(self) -> float:
        """Mean over all images, NaN before the first."""
        return self.total / self.images if self.images else float("nan")


def delta_m(
    scores: Mapping[str, Mapping[str, float]],
    baseline: Mapping[str, Mapping[str, float]],
    higher_is_better: Mapping[str, Mapping[str, bool]] | None = None,
) -> float:
    """Mean improvement over a baseline in percent, first over the metrics of a task, then over tasks:

        delta_m = 100 / T sum_t 1 / M_t sum_j s_tj (M_tj - B_tj) / B_tj

    s_tj = 1 where higher is better, else -1: positive means better than the baseline.

    Raises:
        ValueError: the two have other tasks or metrics, or a baseline score is 0.
    """
    directions = higher_is_better or HIGHER_IS_BETTER
    if {task: set(names) for task, names in scores.items()} != {t: set(n) for t, n in baseline.items()}:
        raise ValueError("delta-m: scores and baseline have other tasks or metrics; score both alike")
    tasks = []
    for task, names in scores.items():
        gains = []
        for name, value in names.items():
            base = baseline[task][name]
            if base == 0:
                raise ValueError(f"delta-m: the baseline's {task} {name} is 0; no share of it can be taken")
            gains.append((1 if directions[task][name] else -1) * (value - base) / base)
        tasks.append(float(np.mean(gains)))
    return 100 * float(np.mean(tasks))


def _measured(truth: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Pixels with a measurement, (B, C, H, W) -> (B, 1, H, W)."""
    total = truth.sum(1, keepdims=True)
    return (total != 0) & np.isfinite(total)


def _mean(values: NDArray | Sequence[float]) -> float:
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()) if array.size else float("nan")
