"""Anchors: what a task's features look like, kept as counts, sums and second-order sums in float64.

No sample is kept. Sums are added up sample by sample, so anchors of parts of a task can be merged. Beside
them stand the distances of held-out samples (far.py), which tell what is far; they need all samples at once.
Legend: N samples, W feature width, K width of the scatter (W, or SCATTER_WIDTH for wide features).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from model.moe.far import held_out_distances, new_value_distances

WIDE = 1024
"""Features wider than this get their scatter in a projected space."""
SCATTER_WIDTH = 256
"""Width of that space."""
PROJECTION_SEED = 20260
"""Seed of the projection; stored with every anchor, so that another value in a later version does no harm."""


@lru_cache(maxsize=4)
def projection(width: int, seed: int) -> Tensor:
    """Seeded orthonormal rows (SCATTER_WIDTH, width), float64.

    Q of the QR decomposition of a Gaussian matrix, its signs fixed, so that it does not depend on the linear
    algebra library; NumPy's `RandomState` stream is frozen.
    """
    gaussian = torch.from_numpy(np.random.RandomState(seed).standard_normal((width, SCATTER_WIDTH)))
    q, r = torch.linalg.qr(gaussian)
    return (q * r.diagonal().sign()).T.contiguous()


def scatter_space(rows: Tensor) -> tuple[int | None, Tensor]:
    """The seed of the projection that features (N, W) need, None for narrow ones, and the features in it."""
    if rows.shape[1] <= WIDE:
        return None, rows
    return PROJECTION_SEED, rows @ projection(rows.shape[1], PROJECTION_SEED).T


@dataclass(frozen=True)
class Sums:
    """Sums over samples that weigh as many as the task has."""

    sum: Tensor
    """Sum of the features. (W,) float64"""
    outer: Tensor
    """Sum of x x^T, of the projected features if they are wide. (K, K) float64"""


@dataclass(frozen=True)
class ModalityStats:
    """Sums over the samples of one task that have the modality."""

    count: int
    """Number of samples N."""
    sum: Tensor
    """Sum of the features. (W,) float64"""
    outer: Tensor
    """Sum of x x^T, of the projected features if they are wide. (K, K) float64"""
    feature_kind: str
    """Where the feature comes from, such as `question`; kinds do not mix."""
    projection_seed: int | None = None
    """Seed of the projection W -> K; None where K is W."""
    held_out: Tensor | None = None
    """Sorted distances of held-out samples (N,) float64, empty for a single clip; None where unknown."""
    held_out_new: Tensor | None = None
    """The same of distinct values held out, for text: wordings; None where unknown or not of use."""
    reworded: Sums | None = None
    """The same samples with their questions in other words; None where none were made."""

    @property
    def width(self) -> int:
        """Feature width W."""
        return len(self.sum)

    @property
    def mean(self) -> Tensor:
        """Mean feature. (W,) float64"""
        return self.sum / self.count

    def narrow(self, x: Tensor) -> Tensor:
        """Features in the space of the scatter. (..., W) -> (..., K) float64"""
        if self.projection_seed is None:
            return x.double()
        return x.double() @ projection(self.width, self.projection_seed).T

    @property
    def scatter(self) -> Tensor:
        """Sum of (x - mean)(x - mean)^T. (K, K) float64"""
        mean = self.narrow(self.mean)
        return self.outer - self.count * torch.outer(mean, mean)

    def blended(self, share: float) -> "ModalityStats":
        """As if this share of every question's askers had asked it in other words, where such are known."""
        if self.reworded is None or share == 0:
            return self
        return replace(
            self,
            sum=(1 - share) * self.sum + share * self.reworded.sum,
            outer=(1 - share) * self.outer + share * self.reworded.outer,
        )

    def with_rewordings(self, rows: Tensor, weights: Tensor) -> "ModalityStats":
        """Statistics that know the questions in other words too.

        Args:
            rows: features of rewordings. (M, W)
            weights: how much each counts beside the others, of any scale, above 0. (M,)

        Raises:
            ValueError: widths differ, no rows, or a value is not finite.
        """
        if rows.ndim != 2 or len(rows) == 0 or rows.shape[1] != self.width or not torch.isfinite(rows).all():
            raise ValueError(
                f"rewordings: got shape {tuple(rows.shape)}, expected some finite rows of width {self.width}"
            )
        rows, weights = rows.detach().cpu().double(), weights.double()
        weighed = rows * (weights * (self.count / weights.sum()))[:, None]
        sums = Sums(weighed.sum(0), self.narrow(weighed).T @ self.narrow(rows))
        return replace(self, reworded=sums)

    @staticmethod
    def from_rows(
        rows: Tensor, feature_kind: str, clips: Sequence[str] | None = None, values_recur: bool = False
    ) -> "ModalityStats":
        """Statistics of N >= 1 samples. rows (N, W)

        clips: see `held_out_distances`; values_recur: whether many samples share a value, as with questions.

        Raises:
            ValueError: not two-dimensional, empty, not one clip per row, or a value is not finite.
        """
        if rows.ndim != 2 or len(rows) == 0:
            raise ValueError(f"features: got shape {tuple(rows.shape)}, expected (samples, width), not empty")
        finite = torch.isfinite(rows).all(1)
        if not finite.all():
            raise ValueError(
                f"features: row {int((~finite).nonzero()[0, 0])} has values that are not finite; "
                "encode it again"
            )
        rows = rows.detach().cpu().double()
        seed, narrow = scatter_space(rows)
        held_out = held_out_distances(narrow, clips)
        held_out_new = new_value_distances(narrow) if values_recur else None
        return ModalityStats(
            len(rows), rows.sum(0), narrow.T @ narrow, feature_kind, seed, held_out, held_out_new
        )

    def merged(self, other: "ModalityStats") -> "ModalityStats":
        """Statistics of both parts together, without held-out distances: a part knows only its own.

        Raises:
            ValueError: width, kind or projection differ.
        """
        mine = (self.width, self.feature_kind, self.projection_seed)
        theirs = (other.width, other.feature_kind, other.projection_seed)
        if mine != theirs:
            raise ValueError(
                f"statistics do not merge: width, kind and projection seed are {mine} and {theirs}"
            )
        both = None
        if self.reworded is not None and other.reworded is not None:
            both = Sums(self.reworded.sum + other.reworded.sum, self.reworded.outer + other.reworded.outer)
        return replace(
            self,
            reworded=both,
            count=self.count + other.count,
            sum=self.sum + other.sum,
            outer=self.outer + other.outer,
            held_out=None,
            held_out_new=None,
        )


@dataclass(frozen=True)
class Anchor:
    """One task's anchor: a mean per modality and, unless it is a published file, the statistics behind it."""

    task_id: int
    """Task that the anchor stands for."""
    base_identity: str | None
    """Identity of the backbone that made the features; None if unknown."""
    means: Mapping[str, Tensor]
    """Modality -> mean feature. (W,) float64"""
    stats: Mapping[str, ModalityStats] = field(default_factory=dict)
    """Modality -> statistics; empty for a published file, which can only route with the raw metric."""

    @property
    def complete(self) -> bool:
        """Whether every modality has statistics."""
        return set(self.stats) == set(self.means)

    @staticmethod
    def from_stats(task_id: int, base_identity: str | None, stats: Mapping[str, ModalityStats]) -> "Anchor":
        """Anchor whose means follow from the statistics.

        Raises:
            ValueError: no modality, or a negative task id.
        """
        if task_id < 0 or not stats:
            raise ValueError(
                f"anchor of task {task_id} with modalities {sorted(stats)}: ids count from 0, one is needed"
            )
        stats = {name: stats[name] for name in sorted(stats)}
        return Anchor(task_id, base_identity, {name: part.mean for name, part in stats.items()}, stats)

    @staticmethod
    def from_features(
        task_id: int,
        features: Mapping[str, Tensor],
        *,
        base_identity: str | None = None,
        feature_kinds: Mapping[str, str] | None = None,
        clips: Mapping[str, Sequence[str]] | None = None,
    ) -> "Anchor":
        """Anchor of a task from its features, modality -> (N, W), only the rows that have the modality.

        Args:
            feature_kinds: modality -> where the feature comes from (default: `tower`). A modality with no
                rows is left out.
            clips: modality -> the clip of each row (default: each its own), see `held_out_distances`.

        Raises:
            ValueError: no modality has rows, or a value is not finite; named by modality.
        """
        kinds, clips = feature_kinds or {}, clips or {}
        stats = {}
        for name, rows in features.items():
            if len(rows) == 0:
                continue
            try:
                stats[name] = ModalityStats.from_rows(
                    rows, kinds.get(name, "tower"), clips.get(name), values_recur=name == "text"
                )
            except ValueError as error:
                raise ValueError(f"task {task_id}, modality {name!r}: {error}") from error
        return Anchor.from_stats(task_id, base_identity, stats)

    def with_rewordings(self, rows: Tensor, weights: Tensor) -> "Anchor":
        """The anchor, its text knowing the questions in other words; see `ModalityStats.with_rewordings`."""
        text = self.stats["text"].with_rewordings(rows, weights)
        return replace(self, stats={**self.stats, "text": text})

    def merged(self, other: "Anchor") -> "Anchor":
        """Anchor of two parts of one task, such as the parts that two processes read.

        Raises:
            ValueError: another task or base, or statistics missing or unequal in kind.
        """
        if (self.task_id, self.base_identity) != (other.task_id, other.base_identity):
            raise ValueError(
                f"anchors of tasks {self.task_id} and {other.task_id} or of unequal bases do not merge"
            )
        if not (self.complete and other.complete):
            raise ValueError(
                f"anchor of task {self.task_id}: a published anchor has no counts and cannot be merged"
            )
        stats = dict(self.stats)
        for name, part in other.stats.items():
            stats[name] = stats[name].merged(part) if name in stats else part
        return Anchor.from_stats(self.task_id, self.base_identity, stats)
