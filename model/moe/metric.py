"""The geometry of one modality, from the statistics of all tasks: whitening and weight.

    S = within-task covariance pooled over tasks, T = total covariance, both shrunk: (1 - a) S + a tr(S)/K I
    c = mean of the task means, W = S^(-1/2)

Everything is float64, and computed row by row, so that a score does not depend on the batch it is in.
Legend: B rows, E tasks with this modality, W width, K width of the scatter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from model.moe.anchors import ModalityStats

_FLAT = 1e-6
"""Share of the total variance that the within-task variance is taken to have at least."""
_ROUNDING = 1e-12
"""Share of the mean square below which a variance is rounding."""
_BLOCK = 2**17
"""Numbers of a matrix (1 MB) that stay in the processor's cache while all rows pass."""


@dataclass(frozen=True)
class ModalityMetric:
    """Whitened space of one modality."""

    tasks: tuple[int, ...]
    """Sorted ids of the tasks that have the modality."""
    stats: ModalityStats
    """Any task's statistics, for width and projection."""
    center: Tensor
    """c, the mean of the task means. (K,)"""
    whitening: Tensor
    """W. (K, K)"""
    means: Tensor
    """W (mu_t - c). (E, K)"""
    weight: float
    """How much the modality tells tasks apart beyond chance, >= 0."""
    near: float
    """Expected squared whitened distance of a new sample from its task's mean."""
    total_mean: Tensor
    """Mean over all samples. (K,)"""
    total_whitening: Tensor
    """T^(-1/2). (K, K)"""
    log_volume: float
    """(log det T - log det S) / 2."""

    @cached_property
    def squares(self) -> Tensor:
        """Squared lengths of the means. (E,)"""
        return row_dots(self.means)

    def whiten(self, x: Tensor) -> Tensor:
        """W (x - c) row by row. (B, W) -> (B, K)"""
        return rows_times(self.whitening, self._narrow(x) - self.center)

    def log_ratio(self, x: Tensor, distances: Tensor) -> Tensor:
        """log N(x; mu_t, S) - log N(x; m, T). x (B, W), distances (B, E) -> (B, E)"""
        y = rows_times(self.total_whitening, self._narrow(x) - self.total_mean)
        return 0.5 * (row_dots(y)[:, None] - distances) + self.log_volume

    def _narrow(self, x: Tensor) -> Tensor:
        if self.stats.projection_seed is None:
            return x.double()
        return torch.cat([self.stats.narrow(row[None]) for row in x.double()])


def fit_metric(stats: Mapping[int, ModalityStats], shrinkage: float, target: str = "mean") -> ModalityMetric:
    """Metric of one modality from its statistics, task id -> statistics, at least one.

    target: what covariances shrink to, the `mean` or the `median` variance of the coordinates. The mean of a
    language model's states is that of its few outlier coordinates, which matters where shrinkage is strong.

    weight = mean_t |W (mu_t - c)|^2 - its expectation if tasks did not differ, D (1 - 1/E) mean_t(1 / n_t),
    not below 0. D, the expected squared distance of a new sample, is the trace of the true covariance times
    S^-1, estimated by leaving one out: q / (1 - q (1 - a) / dof) with q = tr(S_raw S^-1). It is about K
    where samples are many, and much more where they are fewer than dimensions and S looks too small.

    Raises:
        ValueError: widths, kinds or projections differ between tasks.
    """
    tasks = tuple(sorted(stats))
    parts = [stats[task] for task in tasks]
    _check_alike(tasks, parts)
    means = torch.stack([part.narrow(part.mean) for part in parts])  # (E, K)
    center = means.mean(0)
    count = sum(part.count for part in parts)
    dof = max(1, count - len(parts))
    total_mean = (
        sum((part.count * mean for part, mean in zip(parts, means, strict=True)), torch.zeros(())) / count
    )
    # Added up one by one: stacked, those of a thousand tasks would fill the memory once more.
    outer = sum((part.outer for part in parts[1:]), parts[0].outer)
    within = sum((part.scatter for part in parts[1:]), parts[0].scatter) / dof
    total = (outer - count * torch.outer(total_mean, total_mean)) / max(1, count - 1)
    square = float(outer.diagonal().mean()) / count
    floor = max(_FLAT * float(total.diagonal().mean()), _ROUNDING * square) or 1.0

    values, vectors, raw = _shrunk_spectrum(within, shrinkage, floor, target)
    total_values, total_vectors, _ = _shrunk_spectrum(total, shrinkage, floor, target)
    ratio = raw / values  # eigenvalues of S_raw S^-1
    q = float(ratio.sum())
    near = q / (1 - q * (1 - shrinkage) / dof)
    whitening = _inverse_root(values, vectors)
    whitened = (means - center) @ whitening
    between = float((whitened**2).sum(1).mean())
    by_chance = near * (1 - 1 / len(tasks)) * sum(1 / part.count for part in parts) / len(tasks)
    return ModalityMetric(
        tasks,
        parts[0],
        center,
        whitening,
        whitened,
        max(0.0, between - by_chance),
        near,
        total_mean,
        _inverse_root(total_values, total_vectors),
        0.5 * float(total_values.log().sum() - values.log().sum()),
    )


def rows_times(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ row for every row, one product each: a batched one may round differently with its size.

    A large matrix is taken in blocks, so that it is read once for all rows. matrix (K, W), x (B, W) -> (B, K)
    """
    if len(x) == 0:
        return x.new_zeros(0, len(matrix))
    rows = [row.clone() for row in x]
    blocks = matrix.split(max(1, _BLOCK // matrix.shape[1]))
    return torch.cat([torch.stack([torch.mv(block, row) for row in rows]) for block in blocks], 1)


def row_dots(x: Tensor) -> Tensor:
    """Squared length of every row, one product each of a copy: its place in memory may change the rounding.

    (B, K) -> (B,)
    """
    rows = [row.clone() for row in x]
    return torch.stack([torch.dot(row, row) for row in rows]) if rows else x.new_zeros(0)


def cosines(y: Tensor, means: Tensor, squares: Tensor | None = None) -> Tensor:
    """Cosine of every row with every mean, 0 where either is zero.

    y (B, K), means (E, K), their squared lengths (E,) where they are known -> (B, E)
    """
    squares = row_dots(means) if squares is None else squares
    lengths = row_dots(y).sqrt()[:, None] * squares.sqrt()
    return torch.where(lengths > 0, rows_times(means, y) / lengths.clamp_min(torch.finfo(y.dtype).tiny), 0.0)


def squared_distances(y: Tensor, means: Tensor, squares: Tensor | None = None) -> Tensor:
    """Squared distance of every row from every mean.

    y (B, K), means (E, K), their squared lengths (E,) where they are known -> (B, E)
    """
    squares = row_dots(means) if squares is None else squares
    return (row_dots(y)[:, None] - 2 * rows_times(means, y) + squares).clamp_min(0.0)


def _check_alike(tasks: tuple[int, ...], parts: list[ModalityStats]) -> None:
    for task, part in zip(tasks, parts, strict=True):
        for name in ("width", "feature_kind", "projection_seed"):
            got, expected = getattr(part, name), getattr(parts[0], name)
            if got != expected:
                raise ValueError(
                    f"{name} of task {task} is {got!r}, of task {tasks[0]} {expected!r}; "
                    "make all anchors with the same backbone and features"
                )


def _shrunk_spectrum(
    covariance: Tensor, shrinkage: float, floor: float, target: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues after shrinkage, eigenvectors, eigenvalues before."""
    raw, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
    raw = raw.clamp_min(0.0)
    usual = raw.mean() if target == "mean" else covariance.diagonal().median()
    return (1 - shrinkage) * raw + shrinkage * max(float(usual), floor), vectors, raw


def _inverse_root(values: Tensor, vectors: Tensor) -> Tensor:
    return (vectors / values.sqrt()) @ vectors.T
