"""A map of the routing space in two dimensions: where the anchors lie, and where the test samples do.

Each sample and each anchor is placed in the space in which they are compared,

    z = (sqrt(w_m / sum_m w_m) y_m / |y_m|)_m        y_m = W_m (x_m - c_m), see model/moe/routing.py

so that <z, z_t> is the cosine router's score of task t. The map shows z on the two directions in which the
anchors z_t vary most (principal components of the anchors about their mean, in the whitened space; Fisher's
discriminant plane). One view holds all modalities together, one each modality alone (w = 1).

Legend: B samples, E tasks, W feature width, K width of a view.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.benchmark import Task
from data.files import with_checksum, write_json_atomic
from data.folders import StudyFolders, stored_anchor
from data.inputs import Inputs
from data.samples import Sample
from evaluation.report.reading import ALL, ANCHOR_MAP
from model.moe.anchor_files import load_anchor
from model.moe.routing import Router
from model.moe.routing_records import RouterConfig, RoutingFeatures

MOST = 100  # samples of a task on the map
DIGITS = 3


@dataclass(frozen=True)
class _Placed:
    """One modality's unit vectors; rows of samples without it are 0."""

    samples: Tensor  # (B, K)
    anchors: Tensor  # (E, K), 0 where an anchor lacks the modality


def write_anchor_map(
    folder: Path,
    tasks: Sequence[Task],
    tests: Sequence[Sequence[Sample]],
    folders: StudyFolders,
    inputs: Inputs,
    config: RouterConfig,
) -> None:
    """Write anchor_map.json for the anchors of a study and up to MOST test samples of each task, evenly
    spaced in their file, and its checksum; nothing where an anchor is missing."""
    files = [stored_anchor(folders.anchors("anchor_moe"), task.id) for task in tasks]
    if not all(path.is_file() for path in files):
        return
    anchors = [
        load_anchor(path, task.id, inputs.base_identity) for path, task in zip(files, tasks, strict=True)
    ]
    shown = [samples[:: -(-len(samples) // MOST) or 1] for samples in tests]
    features = inputs.routing([sample for group in shown for sample in group])
    ids = [task.id for task, group in zip(tasks, shown, strict=True) for _ in group]
    content = anchor_map(Router(anchors, config), features, ids)
    write_json_atomic(folder / ANCHOR_MAP, with_checksum(content))


def anchor_map(router: Router, features: RoutingFeatures, task_ids: Sequence[int]) -> dict[str, Any]:
    """The map as plain values, for anchor_map.json.

    Args:
        task_ids: the task that each of the B samples belongs to.

    Raises:
        ValueError: one task id for each sample is expected.
    """
    if len(task_ids) != len(features):
        raise ValueError(f"anchor map: {len(task_ids)} task ids for {len(features)} samples; give one each")
    weights = router.weights()
    placed = {name: _place(router, features, name) for name in router.modalities if name in features.values}
    views = {ALL: _together(placed, weights)} if len(placed) > 1 else {}
    views |= placed
    return {
        "router": router.config.router,
        "metric": "raw" if router.raw else "whitened",
        "weights": {name: round(float(weight), 6) for name, weight in weights.items()},
        "candidates": list(router.candidates),
        "tasks": list(task_ids),
        "chosen": router.route(features).task_ids if router.config.router in ("cosine", "lda") else None,
        "views": {name: _view(view) for name, view in views.items()},
    }


def _place(router: Router, features: RoutingFeatures, name: str) -> _Placed:
    """Samples and anchors in the space where one modality is compared."""
    x = features.values[name].detach().cpu().double()
    present = features.present[name].detach().cpu().bool()
    columns = [row for row, anchor in enumerate(router.anchors) if name in anchor.means]
    if router.raw:
        y, means = x, torch.stack([router.anchors[row].means[name].double() for row in columns])
    else:
        y, means = router.metrics[name].whiten(x), router.metrics[name].means
    anchors = torch.zeros(len(router.anchors), means.shape[1], dtype=torch.float64)
    anchors[columns] = _unit(means)
    return _Placed(_unit(y) * present[:, None], anchors)


def _together(placed: Mapping[str, _Placed], weights: Mapping[str, float]) -> _Placed:
    """All modalities side by side, each scaled by the root of its share of the weights."""
    total = sum(weights[name] for name in placed) or 1.0
    shares = {name: (weights[name] / total) ** 0.5 for name in placed}
    return _Placed(
        torch.cat([shares[name] * view.samples for name, view in placed.items()], dim=1),
        torch.cat([shares[name] * view.anchors for name, view in placed.items()], dim=1),
    )


def _view(view: _Placed) -> dict[str, Any]:
    """Two coordinates for each sample (null where it lacks the modality) and each anchor."""
    center = view.anchors.mean(0)
    _, spread, directions = torch.linalg.svd(view.anchors - center, full_matrices=False)
    axes = torch.zeros(2, view.anchors.shape[1], dtype=torch.float64)
    axes[: min(2, len(directions))] = directions[:2]
    # A direction and its opposite fit alike; the largest entry is made positive, so that maps repeat.
    largest = axes.gather(1, axes.abs().argmax(1, keepdim=True))
    axes *= torch.where(largest < 0, -1.0, 1.0)
    squares = spread.square()
    there = view.samples.abs().sum(1) > 0
    samples, anchors = (view.samples - center) @ axes.T, (view.anchors - center) @ axes.T
    return {
        "shown": round(float(squares[:2].sum() / squares.sum().clamp_min(1e-300)), DIGITS),
        "anchors": _rounded(anchors),
        "samples": [
            row if known else None for row, known in zip(_rounded(samples), there.tolist(), strict=True)
        ],
    }


def _unit(rows: Tensor) -> Tensor:
    """Rows at length 1; a row of zeros stays. (B, K)"""
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)


def _rounded(rows: Tensor) -> list[list[float]]:
    return [[round(value, DIGITS) + 0.0 for value in row] for row in rows.tolist()]
