"""Expert files: `expert_task_k.pt` or `.safetensors`, tensors and plain values only.

    {"model.layers.{i}.mlp.{projection}.lora_A.weight": (R, in),
     "model.layers.{i}.mlp.{projection}.lora_B.weight": (out, R), "expert": {...}}

Projections of the attention stand under `self_attn` in place of `mlp`. A gated expert (gated.py) has
`...lora_gate.weight` (E, in) beside A and B. A full-MLP expert has `model.layers.{i}.mlp.{projection}.weight`
(out, in) instead; without the entry `expert` it is a published file, whose base cannot be verified.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.moe.expert_sites import KEY, ExpertConfig, GatedConfig, in_usual_order
from model.moe.files import read_tensor_file, write_tensor_file

logger = logging.getLogger(__name__)

FORMAT = 1
_KEY = re.compile(KEY + r"(\.lora_(A|B|gate))?\.weight$")


@dataclass(frozen=True)
class ExpertHeader:
    """What an expert file says about itself."""

    kind: str
    """`lora`, `mlp` or `gated`."""
    rank: int | None
    """Rank of a LoRA or gated expert."""
    alpha: float | None
    """Numerator of the LoRA scale."""
    task_id: int | None
    """Task of the expert; None in a published file."""
    base_identity: str | None
    """Identity of the backbone it was trained on; None if unknown."""
    tokens: str = "all"
    """Which tokens it acts on (see ExpertConfig)."""
    branches: int | None = None
    """Branches of a gated expert."""


@dataclass(frozen=True)
class ExpertFile:
    """Header of a file and the layers and projections that it covers."""

    header: ExpertHeader
    layers: tuple[int, ...]
    projections: tuple[str, ...]

    @property
    def config(self) -> ExpertConfig:
        """The configuration of a bank that can hold the file."""
        header = self.header
        sites: dict[str, Any] = {
            "layers": self.layers,
            "projections": self.projections,
            "tokens": header.tokens,
        }
        if header.rank is None or header.alpha is None:
            return ExpertConfig(header.kind, **sites)
        low_rank = {"kind": header.kind, "rank": header.rank, "alpha": header.alpha, **sites}
        if header.branches is None:
            return ExpertConfig(**low_rank)
        return GatedConfig(**low_rank, branches=header.branches)


def check_finite(tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise a ValueError that names the first tensor with a value that is not finite."""
    for key, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(
                f"{path}: not saved, {key} has values that are not finite; lower the learning rate"
            )


def header_entry(header: ExpertHeader) -> dict[str, object]:
    """The entry `expert` of a file: plain values, read back by `parse_header`."""
    entry = {**asdict(header), "format": FORMAT}
    return {key: value for key, value in entry.items() if key != "branches" or value is not None}


def write_expert(path: str | Path, header: ExpertHeader, tensors: Mapping[str, Tensor]) -> None:
    """Write an expert, atomically, in the container that the suffix names.

    Raises:
        ValueError: a value is not finite.
        OSError: not writable, or the disk is full.
    """
    check_finite(tensors, path)
    content: dict[str, object] = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    write_tensor_file(path, {**content, "expert": header_entry(header)})


def inspect_expert(path: str | Path) -> ExpertFile:
    """What a file holds, so that a bank can be configured for it.

    Raises:
        ValueError: as `read_expert`, or a key that no expert has.
    """
    return inspect_content(read_tensor_file(path, mmap=True), path)[0]


def inspect_content(content: Mapping[str, object], path: str | Path) -> tuple[ExpertFile, dict[str, Tensor]]:
    """What a file's content is, and its tensors; as `inspect_expert`."""
    header, tensors = _header(content, path), _tensors(content, path)
    return ExpertFile(header, *expert_sites_of(tensors, path)), tensors


def expert_sites_of(keys: Iterable[str], path: str | Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Layers and projections that tensors under these keys cover; ValueError for a key that no expert has."""
    found = []
    for key in keys:
        match = _KEY.match(key)
        if match is None:
            raise ValueError(
                f"{path}: unexpected key {key!r}; expected model.layers.N.mlp.NAME...weight or "
                "model.layers.N.self_attn.NAME...weight"
            )
        found.append(match)
    layers = tuple(sorted({int(match["layer"]) for match in found}))
    return layers, in_usual_order({match["projection"] for match in found})


def read_expert(path: str | Path, wanted: ExpertHeader, *, mmap: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a file that is what `wanted` says; an unknown base passes with a warning.

    Args:
        mmap: leave the tensors on disk until they are used.

    Raises:
        ValueError: file missing, damaged or carrying code, or another kind, rank, alpha, task or base.
    """
    content = read_tensor_file(path, mmap=mmap)
    check_header(path, _header(content, path), wanted)
    return _tensors(content, path)


def check_header(path: str | Path, header: ExpertHeader, wanted: ExpertHeader) -> None:
    """Raise a ValueError unless a file with this header is what `wanted` says; see `read_expert`."""
    for name in ("kind", "rank", "branches", "alpha", "tokens", "task_id"):
        got, expected = getattr(header, name), getattr(wanted, name)
        if got != expected and not (name == "task_id" and got is None):
            raise ValueError(f"{path}: {name} is {got!r}, expected {expected!r}; {_ADVICE[name]}")
    if header.base_identity is None or wanted.base_identity is None:
        logger.warning(
            "%s: base unverified (%s names no base), only widths are checked", path, _unnamed(header)
        )
    elif header.base_identity != wanted.base_identity:
        raise ValueError(
            f"{path}: made for base {header.base_identity[:16]}, the backbone loaded is "
            f"{wanted.base_identity[:16]}; load the backbone it was trained on, or train it again"
        )


def _tensors(content: Mapping[str, object], path: str | Path) -> dict[str, Tensor]:
    tensors = {key: value for key, value in content.items() if key != "expert"}
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{path}: {key!r} is a {type(value).__name__}, expected a tensor")
    return tensors  # type: ignore[return-value]


def check_tensors(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise a ValueError unless `state` has exactly these keys, shapes and a floating type."""
    check_shapes({key: tuple(tensor.shape) for key, tensor in state.items()}, shapes, source)
    for key in shapes:
        if not state[key].is_floating_point():
            raise ValueError(f"{source}: {key} has type {state[key].dtype}, expected a floating type")


def check_shapes(got: Mapping[str, Sequence[int]], shapes: Mapping[str, Sequence[int]], source: str) -> None:
    """Raise a ValueError unless `got` has exactly these keys and shapes."""
    missing = [key for key in shapes if key not in got]
    unexpected = [key for key in got if key not in shapes]
    if missing or unexpected:
        raise ValueError(
            f"{source}: {len(missing)} keys missing {missing[:3]}, {len(unexpected)} unexpected "
            f"{unexpected[:3]}; the expert was made with other layers or projections, or for another model"
        )
    for key, shape in shapes.items():
        if tuple(got[key]) != tuple(shape):
            raise ValueError(
                f"{source}: {key} has shape {tuple(got[key])}, expected {tuple(shape)}; "
                "the expert was made for another model or rank"
            )


_ADVICE = {
    "kind": "choose the expert kind that the file has",
    "rank": "choose the rank that the file was trained with",
    "branches": "choose the number of branches that the file was trained with",
    "tokens": "choose the tokens that the file was trained for",
    "alpha": "choose the alpha that the file was trained with",
    "task_id": "the file was renamed or copied; every expert keeps its own task id",
}


def _header(content: Mapping[str, object], path: str | Path) -> ExpertHeader:
    if "expert" not in content:
        if any(".lora_" in key for key in content):
            raise ValueError(
                f"{path}: a LoRA expert without its entry 'expert'; save it again with ExpertBank.save"
            )
        return ExpertHeader("mlp", None, None, None, None)
    return parse_header(content["expert"], path)


def parse_header(entry: object, path: str | Path) -> ExpertHeader:
    """The header in an entry `expert`; `path` names the file in errors.

    Raises:
        ValueError: missing or unknown keys, or another format.
    """
    expected = {"kind", "rank", "alpha", "task_id", "base_identity", "tokens", "format"}
    if not isinstance(entry, dict) or set(entry) - {"branches"} != expected:
        got = sorted(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
        raise ValueError(f"{path}: entry 'expert' is {got}, expected the keys {sorted(expected)}")
    if entry["format"] != FORMAT:
        raise ValueError(
            f"{path}: expert format {entry['format']!r}, this version reads {FORMAT}; update the code"
        )
    return ExpertHeader(
        entry["kind"],
        entry["rank"],
        entry["alpha"],
        entry["task_id"],
        entry["base_identity"],
        entry["tokens"],
        entry.get("branches"),
    )


def _unnamed(header: ExpertHeader) -> str:
    return "the file" if header.base_identity is None else "the bank"
