"""Expert merging: experts of similar tasks folded into one of the same size, so that T tasks need fewer.

    grouping = group_tasks(*anchor_distances(anchors), keep=2)
    folded = fold([bank.state(task) for task in grouping.groups[0]], FoldConfig("svd"))

Tasks are grouped by what the router compares, their anchors; an expert of a group is then one of

    average    mean of the A, mean of the B (LoRA), or of the full weights
    svd        best rank-R approximation of the mean update, mean_e B_e A_e
    svd_sum    the same of the sum, sum_e B_e A_e (task arithmetic, arXiv 2212.04089)
    ties       trim, elect sign, disjoint mean of the updates (arXiv 2306.01708), cut to rank R

Legend: E experts of a group, T tasks, R rank; `in`, `out` widths of a layer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.moe.anchors import Anchor
from model.moe.expert_init import check_alike, copied_state, mean_state, relative_weights, weighted_mean
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, RoutingFeatures

METHODS = ("average", "svd", "svd_sum", "ties")
_A, _B = ".lora_A.weight", ".lora_B.weight"
_FARTHEST = 2.0
"""Distance of anchors without a common modality: that of opposite directions."""
_DIGITS = 9
"""Distances equal to so many decimals are a tie: their rounding depends on the order of the anchors."""


@dataclass(frozen=True)
class FoldConfig:
    """How the experts of a group become one."""

    method: str = "svd"
    """One of METHODS."""
    density: float = 0.2
    """Share of an update's entries that `ties` keeps, per layer; the paper's value."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"merging method: got {self.method!r}, expected one of {', '.join(METHODS)}")
        if not 0 < self.density <= 1:
            raise ValueError(f"density: got {self.density}, expected more than 0 and at most 1")


@dataclass(frozen=True)
class Join:
    """One step of the grouping."""

    first: tuple[int, ...]
    """Tasks of the group with the lowest id."""
    second: tuple[int, ...]
    """Tasks of the group that it took in."""
    distance: float
    """Mean distance between the tasks of both."""


@dataclass(frozen=True)
class Grouping:
    """Which tasks share an expert."""

    groups: tuple[tuple[int, ...], ...]
    """Sorted task ids of every group, groups by their lowest id."""
    joins: tuple[Join, ...]
    """How they came together, in order."""


def anchor_distances(anchors: Sequence[Anchor]) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Sorted task ids and the distances 1 - s between their anchors, s the router's default score.

    Each anchor is routed as if it were a sample; with anchors without statistics that is the raw metric.
    anchors of T tasks -> ids, (T, T) symmetric, 0 on the diagonal

    Raises:
        ValueError: as `Router`.
    """
    router = Router(anchors, RouterConfig())
    features = RoutingFeatures.from_samples([dict(anchor.means) for anchor in router.anchors])
    scores = router.route(features).scores.numpy()
    distances = np.nan_to_num(1 - (scores + scores.T) / 2, nan=_FARTHEST)
    np.fill_diagonal(distances, 0.0)
    return router.candidates, distances


def group_tasks(tasks: Sequence[int], distances: NDArray[np.float64], keep: int) -> Grouping:
    """Agglomerative grouping with average linkage: the two nearest groups join until `keep` are left.

    The distance of two groups is the mean over their pairs of tasks; ties go to the lowest task ids. (Sokal &
    Michener 1958, UPGMA.)

    Args:
        tasks: T different task ids.
        distances: between them, symmetric. (T, T)

    Raises:
        ValueError: `keep` is not between 1 and T.
    """
    if not 1 <= keep <= len(tasks):
        raise ValueError(f"keep {keep} experts: there are {len(tasks)} tasks; give 1 to {len(tasks)}")
    order = np.argsort(tasks)
    groups: list[tuple[int, ...]] = [(int(tasks[i]),) for i in order]
    d = np.array(distances, dtype=np.float64)[np.ix_(order, order)]
    d[np.tril_indices(len(groups))] = np.inf  # a pair stands at (lower, higher) only
    joins = []
    while len(groups) > keep:
        i, j = (int(n) for n in np.unravel_index(np.round(d, _DIGITS).argmin(), d.shape))  # i < j
        joins.append(Join(groups[i], groups[j], float(d[i, j])))
        sizes = len(groups[i]), len(groups[j])
        full = np.minimum(d, d.T)  # symmetric, infinite on the diagonal
        row = (sizes[0] * full[i] + sizes[1] * full[j]) / sum(sizes)
        full[i], full[:, i] = row, row
        groups[i] = tuple(sorted(groups[i] + groups.pop(j)))
        d = np.delete(np.delete(full, j, 0), j, 1)
        d[np.tril_indices(len(groups))] = np.inf
    return Grouping(tuple(groups), tuple(joins))


def fold(
    states: Sequence[Mapping[str, Tensor]],
    config: FoldConfig,
    weights: Sequence[float] | None = None,
    base: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """One expert from E experts of the same make and rank; a single one comes back as it is.

    The scale alpha / R is the same for all, so that B A stands for the update. Sums are float64.

    Args:
        weights: of each expert (default: equal).
        base: the backbone's own weights under the keys of full-MLP experts, for `ties`.

    Raises:
        ValueError: no experts, different tensors, weights that do not fit; for full-MLP experts a method
            that needs low rank, or `ties` without `base`.
    """
    check_alike(states)
    shares = relative_weights(weights, len(states))
    if len(states) == 1:
        return copied_state(states[0])
    low_rank = any(key.endswith(_A) for key in states[0])
    if config.method == "average":
        return {
            key: weighted_mean([state[key] for state in states], shares).to(like.dtype)
            for key, like in states[0].items()
        }
    if config.method == "ties":
        return _ties_lora(states, config, shares) if low_rank else _ties_full(states, config, shares, base)
    if not low_rank:
        raise ValueError(
            f"method {config.method!r} folds LoRA experts; full-MLP experts fold by average or ties"
        )
    folded = mean_state(states, shares)
    if config.method == "svd_sum":  # E times the mean: the factor goes to A and B alike
        folded = {key: tensor * math.sqrt(len(states)) for key, tensor in folded.items()}
    return folded


def _ties_lora(
    states: Sequence[Mapping[str, Tensor]], config: FoldConfig, shares: Sequence[float]
) -> dict[str, Tensor]:
    folded: dict[str, Tensor] = {}
    for key, like in states[0].items():
        if not key.endswith(_A):
            continue
        other = key.removesuffix(_A) + _B

        def update(state: Mapping[str, Tensor], a: str = key, b: str = other) -> Tensor:
            return state[b].double() @ state[a].double()

        made = low_rank_factors(ties_update(states, update, config.density, shares), len(like))
        folded[key], folded[other] = (factor.to(like.dtype) for factor in made)
    return {key: folded[key] for key in states[0]}


def _ties_full(
    states: Sequence[Mapping[str, Tensor]],
    config: FoldConfig,
    shares: Sequence[float],
    base: Mapping[str, Tensor] | None,
) -> dict[str, Tensor]:
    if base is None:
        raise ValueError(
            "ties folds what full-MLP experts changed of the backbone's weights; give these (base)"
        )
    folded = {}
    for key, like in states[0].items():
        if key not in base or base[key].shape != like.shape:
            got = tuple(base[key].shape) if key in base else "nothing"
            raise ValueError(f"{key}: the backbone's weight is {got}, the experts' {tuple(like.shape)}")
        start = base[key].double().cpu()

        def update(state: Mapping[str, Tensor], name: str = key, start: Tensor = start) -> Tensor:
            return state[name].double() - start

        folded[key] = (start + ties_update(states, update, config.density, shares)).to(like.dtype)
    return folded


def ties_update(
    states: Sequence[Mapping[str, Tensor]],
    update: Callable[[Mapping[str, Tensor]], Tensor],
    density: float,
    shares: Sequence[float],
) -> Tensor:
    """TIES merging of one layer's updates D_e: trim, elect sign, disjoint mean.

    trim       D_e keeps its `density` largest entries by magnitude, the others become 0
    elect      g = sign(sum_e w_e D_e), entry by entry
    mean       sum_e w_e D_e [sign D_e = g] / sum_e w_e [sign D_e = g], 0 where no expert agrees

    Trimmed per layer; the published code trims over all layers together and has no weights (w = 1). The
    updates are made one at a time, so that memory holds a few (out, in) matrices whatever E is.

    Args:
        update: the dense update D of a state. (out, in) float64
    """
    trimmed_at = []
    for state in states:
        size = update(state).abs().flatten()
        kept = math.ceil(density * size.numel())
        trimmed_at.append(size.kthvalue(size.numel() - kept + 1).values)

    def trimmed(place: int) -> Tensor:
        d = update(states[place])
        return d.masked_fill_(d.abs() < trimmed_at[place], 0.0)

    mass = shares[0] * trimmed(0)
    for place in range(1, len(states)):
        mass += shares[place] * trimmed(place)
    elected = mass.sign_()
    above, below = torch.zeros_like(elected), torch.zeros_like(elected)
    for place, share in enumerate(shares):
        d = trimmed(place)
        agrees = (d.sign() == elected) & (elected != 0)
        above += share * d * agrees
        below += share * agrees
    return torch.where(below > 0, above / below.clamp_min(torch.finfo(torch.float64).tiny), 0.0)


def low_rank_factors(update: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A (R, in) and B (out, R), equally long, of the best rank-R approximation of a dense update.

    From the eigenvectors U of the smaller Gram matrix: U_R U_R^T D is that approximation (Eckart and Young
    1936), at a fraction of the time of the full decomposition of a wide matrix. Directions below 1e-8 of the
    largest drown in rounding, far below the float32 of the file. (out, in) float64
    """
    if update.shape[0] > update.shape[1]:
        a, b = low_rank_factors(update.T, rank)
        return b.T.contiguous(), a.T.contiguous()
    a, b = torch.zeros(rank, update.shape[1]).double(), torch.zeros(update.shape[0], rank).double()
    kept = min(rank, len(update))
    u = torch.linalg.eigh(update @ update.T).eigenvectors.flip(1)[:, :kept]
    rows = u.T @ update  # as long as the singular values
    split = torch.linalg.norm(rows, dim=1).sqrt()
    there = split > 0
    a[:kept][there] = rows[there] / split[there, None]
    b[:, :kept] = u * split
    return a, b
