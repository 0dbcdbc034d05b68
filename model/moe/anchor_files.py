"""Anchor files: `anchor_task_k.pt` or `.safetensors` and, beside it, `anchor_task_k.stats.safetensors`.

The first is what the published code reads: modality -> mean, float32, nothing else. The second holds counts,
sums, second-order sums, held-out distances and sums of reworded questions, and in its metadata task, base,
kinds of feature, projection and the checksum of the first.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.moe.anchors import Anchor, ModalityStats, Sums
from model.moe.files import CHECKSUM, atomic_write, read_tensor_file, tensors_checksum, write_tensor_file
from model.moe.json_text import parse_json

logger = logging.getLogger(__name__)

FORMAT = 2
"""Rises too where far.py measures distances otherwise. Format 1 had no held-out distances."""
READABLE = (1, 2)
KEYS = {"format", "task_id", "base_identity", "means_sha256", "modalities"}
PART = {"count", "feature_kind", "projection_seed"}


def stats_path(path: str | Path) -> Path:
    """`anchor_task_k.pt` -> `anchor_task_k.stats.safetensors`."""
    return Path(path).with_suffix(".stats.safetensors")


def save_anchor(anchor: Anchor, path: str | Path) -> None:
    """Write both files, each atomically, the statistics first.

    Raises:
        ValueError: the anchor has no statistics (a published one).
        OSError: not writable, or the disk is full.
    """
    if not anchor.complete:
        raise ValueError(
            f"{path}: the anchor of task {anchor.task_id} has no statistics; build it from features"
        )
    means = {name: mean.float() for name, mean in anchor.means.items()}
    tensors: dict[str, Tensor] = {}
    for name, stats in anchor.stats.items():
        tensors[f"{name}.sum"] = stats.sum.contiguous()
        tensors[f"{name}.outer"] = stats.outer.contiguous()
        tensors |= {f"{name}.{part}": found.contiguous() for part, found in _optional(stats).items()}
    about = {
        "format": FORMAT,
        "task_id": anchor.task_id,
        "base_identity": anchor.base_identity,
        "means_sha256": _checksum(means),
        "modalities": {
            name: {
                "count": s.count,
                "feature_kind": s.feature_kind,
                "projection_seed": s.projection_seed,
                "held_out": sorted(_optional(s)),
            }
            for name, s in anchor.stats.items()
        },
    }
    about[CHECKSUM] = tensors_checksum(tensors, about)
    # One metadata entry: the order of several is not fixed, and equal anchors shall be equal files.
    content = save(tensors, {"anchor": json.dumps(about, sort_keys=True)})
    with atomic_write(stats_path(path)) as file:
        file.write(content)
    write_tensor_file(path, means)


def save_published_anchor(anchor: Anchor, path: str | Path) -> None:
    """Write an anchor without statistics, as the published code does; statistics of an earlier one go.

    Raises:
        OSError: not writable, or the disk is full.
    """
    stats_path(path).unlink(missing_ok=True)
    write_tensor_file(path, {name: mean.float() for name, mean in anchor.means.items()})


def load_anchor(path: str | Path, task_id: int, base_identity: str | None = None) -> Anchor:
    """Read an anchor; without its statistics file it is a published one, (W,) or (positions, W) per modality.

    Args:
        task_id: the task whose anchor this is meant to be.
        base_identity: the backbone loaded; None leaves it unverified.

    Raises:
        ValueError: a file missing, damaged or carrying code; the files do not belong together; another task
            or base.
    """
    means = _read_means(path)
    if not stats_path(path).is_file():
        logger.warning(
            "%s: no statistics beside it, base unverified; it routes with the raw metric only", path
        )
        return Anchor(task_id, None, {name: _position_mean(mean) for name, mean in means.items()})
    about, tensors = _read_stats(stats_path(path))
    if about["means_sha256"] != _checksum(means) or set(about["modalities"]) != set(means):
        raise ValueError(
            f"{path}: not the means that {stats_path(path).name} was saved with; make the anchor again"
        )
    if about["task_id"] != task_id:
        raise ValueError(
            f"{path}: anchor of task {about['task_id']}, expected task {task_id}; "
            "the file was renamed or copied"
        )
    if about["base_identity"] is None or base_identity is None:
        logger.warning("%s: base unverified", path)
    elif about["base_identity"] != base_identity:
        raise ValueError(
            f"{path}: made with base {about['base_identity'][:16]}, the backbone loaded is "
            f"{base_identity[:16]}; load the backbone it was made with, or make the anchors again"
        )
    stats = {}
    for name, part in about["modalities"].items():
        stats[name] = ModalityStats(
            part["count"],
            tensors[f"{name}.sum"],
            tensors[f"{name}.outer"],
            part["feature_kind"],
            part["projection_seed"],
            tensors.get(f"{name}.held_out"),
            tensors.get(f"{name}.held_out_new"),
            Sums(tensors[f"{name}.reworded_sum"], tensors[f"{name}.reworded_outer"])
            if f"{name}.reworded_sum" in tensors
            else None,
        )
    return Anchor.from_stats(task_id, about["base_identity"], stats)


def _read_means(path: str | Path) -> dict[str, Tensor]:
    content = read_tensor_file(path)
    means: dict[str, Tensor] = {}
    for name, mean in content.items():
        if not isinstance(mean, Tensor) or mean.ndim not in (1, 2) or mean.numel() == 0:
            got = tuple(mean.shape) if isinstance(mean, Tensor) else type(mean).__name__
            raise ValueError(f"{path}: {name!r} is {got}, expected a tensor (width,) or (positions, width)")
        if not torch.isfinite(mean).all():
            raise ValueError(f"{path}: {name!r} has values that are not finite; make the anchor again")
        means[name] = mean
    if not means:
        raise ValueError(f"{path}: holds no modality; make the anchor again")
    return means


def _position_mean(mean: Tensor) -> Tensor:
    return mean.double() if mean.ndim == 1 else mean.double().mean(0)


def _read_stats(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = parse_json(file.metadata()["anchor"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: truncated or no anchor statistics ({error}); make the anchor again"
        ) from error
    checksum = about.pop(CHECKSUM, None) if isinstance(about, dict) else ""  # older files have none
    if checksum not in (None, tensors_checksum(tensors, about)) or about.keys() != KEYS:
        raise ValueError(f"{path}: damaged, its checksum does not fit; restore it or make the anchor again")
    if about.get("format") not in READABLE:
        raise ValueError(f"{path}: anchor format {about.get('format')!r}, this version reads {READABLE}")
    parts = about["modalities"]
    if not isinstance(parts, dict) or not all(
        isinstance(p, dict) and p.keys() >= PART for p in parts.values()
    ):
        raise ValueError(f"{path}: modalities without {sorted(PART)} each; make the anchor again")
    expected = {
        f"{name}.{part}"
        for name, known in about["modalities"].items()
        for part in ("sum", "outer", *known.get("held_out", ()))
    }
    if set(tensors) != expected:
        raise ValueError(
            f"{path}: holds {sorted(tensors)}, expected {sorted(expected)}; make the anchor again"
        )
    return about, tensors


def _optional(stats: ModalityStats) -> dict[str, Tensor]:
    """Name in the file -> what is known beyond the sums."""
    found = {"held_out": stats.held_out, "held_out_new": stats.held_out_new}
    if stats.reworded is not None:
        found |= {"reworded_sum": stats.reworded.sum, "reworded_outer": stats.reworded.outer}
    return {name: value for name, value in found.items() if value is not None}


def _checksum(means: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(means):
        digest.update(f"{name} {tuple(means[name].shape)} {means[name].dtype}".encode())
        digest.update(means[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
