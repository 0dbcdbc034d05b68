"""Which samples are far from every task: distances that a task's own held-out samples keep.

When an anchor is made, the task's samples are dealt to FOLDS folds, samples of one clip to the same one.
Each is measured against mean and covariance of the other folds, as a new clip will be against all of them:

    d(x) = |V (x - mu)|^2,  V = ((1 - a) C + a tr(C)/K I)^(-1/2),  C the task's own covariance, a = SHRINKAGE

Only these numbers are kept, with the anchor. A sample is far from a task if in any of the M modalities that
it shares with it

    d(x) > q(level / M),  q(p) the distance that the share p of the held-out samples exceeds,

and far if it is far from every task, so at most about the share `level` of ordinary samples is. For text
there are two answers to what is ordinary: new clips with questions worded as before (`known`), or questions
in new words too (`new`: whole wordings are held out, each counts once).

The union over modalities (Bonferroni) holds whichever are present and however they depend on each other. The
space is the task's own and not the pooled one of routing: which other tasks will be pooled is unknown when
the anchor is made, and so a threshold stays what it is when tasks are added.

Legend: N samples, K width of the scatter, W width of the feature.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from model.moe.anchors import Anchor

FOLDS = 10
"""Folds of the held-out distances (fewer where there are fewer clips)."""
SHRINKAGE = 0.1
"""a above. More than routing takes: here one task's samples alone make the covariance."""
_FLAT = 1e-6
"""Share of the mean square that a variance is taken to have at least; below are rounding and constants."""
_ROUNDING = 1e-3
"""Distances up to here are rounding."""


@dataclass(frozen=True)
class OwnSpace:
    """Where distances from one task are measured, in one modality."""

    mean: Tensor
    """mu. (K,)"""
    whitening: Tensor
    """V. (K, K)"""

    @staticmethod
    def fit(count: int, total: Tensor, outer: Tensor) -> "OwnSpace":
        """From number, sum (K,) and sum of x x^T (K, K) of at least one sample."""
        mean = total / count
        covariance = (outer - count * torch.outer(mean, mean)) / max(1, count - 1)
        values, vectors = torch.linalg.eigh(0.5 * (covariance + covariance.T))
        values = values.clamp_min(0.0)
        floor = max(float(values.mean()), _FLAT * float(outer.diagonal().mean()) / count) or 1.0
        return OwnSpace(mean, (vectors / ((1 - SHRINKAGE) * values + SHRINKAGE * floor).sqrt()) @ vectors.T)

    def distances(self, x: Tensor) -> Tensor:
        """d of every row. (N, K) -> (N,)"""
        return ((x - self.mean) @ self.whitening).square().sum(1)


def new_value_distances(x: Tensor) -> Tensor:
    """Sorted distances of a task's distinct values, such as wordings, from those of other folds.

    x (N, K) float64, one row per sample; returns one distance per distinct row, none for a single one.
    """
    groups = [row.numpy().tobytes().hex() for row in x]
    first = {group: row for row, group in reversed(list(enumerate(groups)))}
    found = _distances_by_row(x, groups)
    return found[sorted(first.values())].sort().values if len(found) else found


def held_out_distances(x: Tensor, clips: Sequence[str] | None = None) -> Tensor:
    """Sorted distances of a task's samples from the samples of other folds; empty for a single clip.

    Args:
        x: features in the space of the scatter. (N, K) float64
        clips: which clip each sample is about; by default each is about its own. New clips are what the task
            will meet, and two questions about one clip say nothing about them.

    Returns:
        (N,) float64.

    Raises:
        ValueError: not one clip per sample.
    """
    clips = [str(row) for row in range(len(x))] if clips is None else clips
    if len(clips) != len(x):
        raise ValueError(f"{len(x)} samples of {len(clips)} clips; give one clip per sample")
    return _distances_by_row(x, clips).sort().values


def _distances_by_row(x: Tensor, clips: Sequence[str]) -> Tensor:
    """As `held_out_distances`, in the order of the rows."""
    # Dealt in the order of hashes: folds of equal size that follow no order or pattern of the file.
    dealt = sorted(set(clips), key=lambda clip: hashlib.sha256(clip.encode()).digest())
    folds = min(FOLDS, len(dealt))
    if folds < 2:
        return x.new_zeros(0)
    fold_of = {clip: place % folds for place, clip in enumerate(dealt)}
    fold_N = torch.tensor([fold_of[clip] for clip in clips])
    total, outer = x.sum(0), x.T @ x
    found = x.new_zeros(len(x))
    for fold in range(folds):
        held = x[fold_N == fold]
        space = OwnSpace.fit(len(x) - len(held), total - held.sum(0), outer - held.T @ held)
        found[fold_N == fold] = space.distances(held)
    return found


def exceeded_by(share: float, held_out: Tensor) -> float:
    """q(share): what a new sample's distance exceeds with this probability; infinite without two distances.

    The k-th smallest of N held-out distances, k = ceil((N + 1)(1 - share)), is exceeded with at most this
    probability by a sample drawn as they were. If share < 1 / (N + 1) there is none, and the largest is
    carried on by a power law (I. Weissman, JASA 73 (1978) 812): q = d_N (1 / ((N + 1) share))^x, where the
    exponent x is the mean of log(d / d_(N-m)) over the m = N / 10 largest (B. M. Hill, Ann. Stat. 3 (1975)
    1163).

    Args:
        share: in (0, 1).
        held_out: sorted. (N,)
    """
    count = len(held_out)
    if count < 2:
        return float("inf")
    distances = held_out.clamp_min(_ROUNDING)
    beyond = (count + 1) * share  # how many of N + 1 samples may lie beyond
    if beyond >= 1:
        return float(distances[count - int(beyond)])
    largest = max(1, count // 10)
    exponent = float((distances[-largest:] / distances[-largest - 1]).log().mean())
    return float(distances[-1]) * (1 / beyond) ** exponent


class FarCheck:
    """Compares samples with the thresholds of every task.

    Args:
        anchors: of the tasks known.
        modalities: which count.
        level: share of ordinary samples that may count as far, in (0, 1).
        wordings: which questions are ordinary, `new` ones too or `known` ones.
    """

    def __init__(self, anchors: Sequence["Anchor"], modalities: Sequence[str], level: float, wordings: str):
        self.anchors = {anchor.task_id: anchor for anchor in anchors}
        self.modalities, self.level, self.wordings = modalities, level, wordings
        self._spaces: dict[tuple[int, str], OwnSpace] = {}  # made when first asked for

    def is_far(self, sample: Mapping[str, Tensor], order: Sequence[int]) -> bool:
        """Whether a sample, modality -> (W,), is far from all tasks of `order`, the likeliest first."""
        return all(self.excess(task, sample) > 1 for task in order)

    def excess(self, task: int, sample: Mapping[str, Tensor]) -> float:
        """Largest d(x) / q(level / M) over the modalities shared with the task: above 1 it is far from it.

        Infinite where none is shared; a modality without held-out distances (published or merged anchors,
        those of earlier versions, a single clip) counts as 0.
        """
        anchor = self.anchors[task]
        shared = [name for name in self.modalities if name in sample and name in anchor.means]
        found = [self._ratio(anchor, name, sample[name], self.level / len(shared)) for name in shared]
        return max(found, default=float("inf"))

    def relative_distance(self, task: int, sample: Mapping[str, Tensor]) -> float:
        """Largest d(x) over the mean of the held-out d, over the modalities shared with the task: samples are
        ordered by this, whatever `level` and `wordings` are. A mean is a better unit than the rare distance
        of `excess`, of which a few wordings tell little.

        Infinite and 0 as in `excess`.
        """
        anchor, found = self.anchors[task], []
        for name in self.modalities:
            if name in sample and name in anchor.means:
                held_out = self._held_out(anchor, name)
                if held_out is None or not len(held_out):
                    found.append(0.0)
                else:
                    mean = max(float(held_out.mean()), _ROUNDING)
                    found.append(self._own_distance(anchor, name, sample[name]) / mean)
        return max(found, default=float("inf"))

    def _ratio(self, anchor: "Anchor", name: str, x: Tensor, share: float) -> float:
        held_out = self._held_out(anchor, name)
        if held_out is None:
            return 0.0
        stats = anchor.stats[name]
        if self.wordings == "new" and stats.held_out_new is not None:
            held_out = stats.held_out_new
        return self._own_distance(anchor, name, x) / exceeded_by(share, held_out)

    def _held_out(self, anchor: "Anchor", name: str) -> Tensor | None:
        stats = anchor.stats.get(name)
        return None if stats is None else stats.held_out

    def _own_distance(self, anchor: "Anchor", name: str, x: Tensor) -> float:
        stats, place = anchor.stats[name], (anchor.task_id, name)
        if place not in self._spaces:
            self._spaces[place] = OwnSpace.fit(stats.count, stats.narrow(stats.sum), stats.outer)
        # One by one: no batch to depend on.
        return float(self._spaces[place].distances(stats.narrow(x[None])))
