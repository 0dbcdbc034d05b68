"""Recorded values that note what is read of them, and the comparisons with the recorded set's tolerances.

Any tensor `X` may be recorded whole, as every 8th row (`X_stride8`) or as its mean over positions
(`X_posmean`); what is there is compared. What was never read is reported by completeness.py.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

INPUT_FOLDERS = ("experts", "anchors")
PROSE = {"training.json/note", "README.md"}  # read by people


class Tolerance(NamedTuple):
    """Largest absolute error; `relative`: over the largest recorded absolute value."""

    kind: str
    bound: float
    relative: bool = True


FEATURES = Tolerance("features, embeddings, media tokens", 1e-4)
FBANK = Tolerance("fbank", 1e-4)
SIMILARITIES = Tolerance("routing similarities", 1e-5, relative=False)
LOGITS = Tolerance("logits", 5e-4, relative=False)
LOSSES = Tolerance("losses", 1e-5)
GRADIENTS = Tolerance("gradients", 1e-3)
UPDATES = Tolerance("weights after steps, of the largest update", 1e-3)
# Half precision rounds every operation to 2^-11 = 5e-4; a few layers deep a few times that is left. We run
# the towers in float32, so this holds the order of magnitude only.
HALF = Tolerance("float16 vision tower (informative)", 1e-2)


@dataclass
class Notes:
    """What the tests of this process read, and how far off the worst value of each kind was."""

    read: set[str] = field(default_factory=set)
    worst: dict[str, float] = field(default_factory=dict)  # kind and bound -> largest error

    def close(self, ours: Tensor, recorded: Tensor, tolerance: Tolerance, what: str = "") -> None:
        assert ours.shape == recorded.shape, f"{what}: {tuple(ours.shape)}, recorded {tuple(recorded.shape)}"
        error = (ours.detach().double() - recorded.double()).abs().max().item()
        scale = recorded.double().abs().max().item() if tolerance.relative else 1.0
        assert error <= tolerance.bound * scale, f"{what}: {error:.2e} off, {tolerance} of {scale:.2e}"
        key = f"{tolerance.kind}, at most {tolerance.bound:.0e}"
        self.worst[key] = max(self.worst.get(key, 0.0), error / (scale or 1.0))

    def merge(self, read: list[str], worst: dict[str, float]) -> None:
        """Take in what another process noted."""
        self.read.update(read)
        for key, error in worst.items():
            self.worst[key] = max(self.worst.get(key, 0.0), error)


class Recorded(Mapping[str, Any]):
    """A recorded file, or an object in a JSON file; entries are noted when they are read."""

    def __init__(self, entries: Mapping[str, Any], name: str, notes: Notes) -> None:
        self._entries, self.name, self.notes = entries, name, notes

    def __getitem__(self, key: str) -> Any:
        value, name = self._entries[key], f"{self.name}/{key}"
        if isinstance(value, dict):
            return Recorded(value, name, self.notes)
        self.notes.read.add(name)
        return value

    def __contains__(self, key: object) -> bool:  # asking is not reading
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def views(self, key: str, value: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Name, our value and the recorded one, of each form in which `key` is recorded."""
        if key in self:
            recorded = self[key]
            as_mean = recorded.ndim == value.ndim - 1
            yield key, value.mean(-2) if as_mean else value, recorded
        if f"{key}_stride8" in self:
            recorded = self[f"{key}_stride8"]
            rows = value[::8]
            if rows.shape != recorded.shape and value.ndim > 2:  # rows of every frame or batch row
                rows = value[:, ::8]
            yield f"{key}_stride8", rows, recorded
        if f"{key}_posmean" in self:
            yield f"{key}_posmean", value.mean(-2), self[f"{key}_posmean"]

    def compare(self, key: str, value: Tensor, tolerance: Tolerance = FEATURES) -> int:
        """Hold `value` against what is recorded of it; returns how many forms of it there were."""
        compared = 0
        for name, ours, recorded in self.views(key, value):
            self.notes.close(ours, recorded, tolerance, f"{self.name}/{name}")
            compared += 1
        return compared

    def compare_exactly(self, key: str, value: Tensor) -> int:
        """As `compare`, of integers."""
        compared = 0
        for name, ours, recorded in self.views(key, value):
            assert torch.equal(ours.long(), recorded.long()), f"{self.name}/{name}"
            compared += 1
        return compared

    def has(self, key: str) -> bool:
        """Whether `key` is recorded in any form."""
        return any(f"{key}{form}" in self for form in ("", "_stride8", "_posmean"))


class RecordedSet:
    """The folder `avqacl_moe` or `aoe_mtl`; files of expected values by name."""

    def __init__(self, folder: Path, notes: Notes) -> None:
        self.folder, self.notes = folder, notes
        self.file = cache(self._open)

    def _open(self, name: str) -> Recorded:
        path = expected_folder(self.folder) / name
        if path.suffix == ".json":
            return Recorded(json.loads(path.read_text()), name, self.notes)
        return Recorded(load_file(path), name, self.notes)

    def names(self, pattern: str) -> list[str]:
        """Names of the files of expected values that fit."""
        return sorted(path.name for path in expected_folder(self.folder).glob(pattern))

    def inputs(self, kind: str) -> dict[int, Path]:
        """Task -> its file in the folder `experts` or `anchors`, noted as read."""
        paths = {int(p.stem.rpartition("_")[2]): p for p in (self.folder / kind).glob("*_task_*.pt")}
        assert paths, f"no {kind} in {self.folder}"
        self.notes.read.update(f"{kind}/{path.name}" for path in paths.values())
        return dict(sorted(paths.items()))


def expected_folder(folder: Path) -> Path:
    """Where a set keeps its expected values: `expected/`, or the folder itself where it has nothing else."""
    return folder / "expected" if (folder / "expected").is_dir() else folder


def recorded_names(folder: Path) -> set[str]:
    """Everything that a test should read: `FILE/KEY` of expected values, experts and anchors by file."""
    expected = expected_folder(folder)
    names = {f"{kind}/{path.name}" for kind in INPUT_FOLDERS for path in (folder / kind).glob("*")}
    for path in expected.rglob("*"):
        file = path.relative_to(expected).as_posix()
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as content:
                names |= {f"{file}/{key}" for key in content.keys()}  # noqa: SIM118
        elif path.suffix == ".json":
            names |= set(_leaves(json.loads(path.read_text()), file))
        elif path.is_file():
            names.add(file)
    return names - PROSE


def _leaves(value: Any, name: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield name
        return
    for key, entry in value.items():
        yield from _leaves(entry, f"{name}/{key}")
