"""Datasets in MTAN's layout: `train|val/{image,label,depth,normal}/{i}.npy`, one array a file.

    image   (H, W, 3) 0 to 1, or uint8  label  (H, W) class number, -1 ignored
    depth   (H, W, 1) metres, 0 none    normal (H, W, 3) unit vectors, 0 none

A sample is an image (3, H, W) and a dictionary task -> target: labels (H, W), depth (1, H, W), normals
(3, H, W), all float32. What is not finite in depth and normals is made 0: not measured.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from data.dense.augment import augment
from data.problems import InputError, Problem

IMAGE = "image"
Sample = tuple[Tensor, dict[str, Tensor]]
NYU_CLASSES = (
    "bed",
    "books",
    "ceiling",
    "chair",
    "floor",
    "furniture",
    "objects",
    "picture",
    "sofa",
    "table",
    "tv",
    "wall",
    "window",
)


@dataclass(frozen=True)
class Layout:
    """Where a dataset keeps its modalities."""

    folders: dict[str, str]  # image and tasks -> folder
    classes: int  # of segmentation

    @property
    def tasks(self) -> list[str]:
        """Tasks in the order of the losses."""
        return [name for name in self.folders if name != IMAGE]


LAYOUTS = {
    "nyuv2": Layout(
        {IMAGE: "image", "segmentation": "label", "depth": "depth", "normal": "normal"}, len(NYU_CLASSES)
    ),
    "cityscapes": Layout({IMAGE: "image", "segmentation": "label_7", "depth": "depth"}, 7),
}
CHANNELS = {IMAGE: 3, "segmentation": 0, "depth": 1, "normal": 3}  # 0: no channel axis
BEYOND = 0.1  # how far an image may leave 0 to 1, as resizing by cubic curves makes it


class DenseFolder(Dataset[Sample]):
    """One part (`train` or `val`) of a dataset.

    Args:
        root: folder with `train` and `val`.
        size: height and width to give; None for that of the files.
        seed: of the augmentation; None for none. What a sample looks like depends on seed, epoch and index
            only, so that an interrupted run goes on as it would have.

    Raises:
        InputError: a folder or file is missing or unreadable, counts or sizes differ; every fault is listed.
    """

    def __init__(
        self,
        root: Path,
        part: str,
        layout: Layout = LAYOUTS["nyuv2"],
        size: tuple[int, int] | None = None,
        seed: int | None = None,
    ) -> None:
        self.folder, self.layout, self.size, self.seed = root / part, layout, size, seed
        self.epoch = 0
        self.names = file_names(self.folder, layout)
        check_sizes(self.folder, layout, self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        arrays = {kind: self._read(kind, index) for kind in self.layout.folders}
        if self.size is not None and arrays[IMAGE].shape[1:] != self.size:
            arrays = {kind: resize(kind, value, self.size) for kind, value in arrays.items()}
        image = arrays.pop(IMAGE)
        if self.seed is None:
            return image, arrays
        place = zlib.crc32(f"{self.seed} {self.epoch} {index}".encode())
        return augment(image, arrays, torch.Generator().manual_seed(place))

    def _path(self, kind: str, index: int) -> Path:
        return self.folder / self.layout.folders[kind] / f"{self.names[index]}.npy"

    def _read(self, kind: str, index: int) -> Tensor:
        """One array, channels first, float32."""
        path = self._path(kind, index)
        stored = read_array(path)
        array = torch.from_numpy(np.array(stored, dtype=np.float32, order="C"))
        if kind == IMAGE:
            array = array / 255 if stored.dtype == np.uint8 else array
            check_image(array, path)
        elif kind == "segmentation":
            check_labels(array, self.layout.classes, path)
        if CHANNELS[kind]:
            array = array.view(*array.shape[:2], CHANNELS[kind]).permute(2, 0, 1)
        if kind in ("depth", "normal"):  # a pixel with one bad channel is not measured
            array = torch.where(torch.isfinite(array).all(0), array, 0.0)
        return array.contiguous()

    def file_size(self) -> tuple[int, int]:
        """Height and width of the files."""
        height, width = read_array(self._path(IMAGE, 0)).shape[:2]
        return int(height), int(width)


def read_array(path: Path) -> NDArray[Any]:
    """A .npy file, left on disk until used, so that its header cannot claim more than there is; no objects,
    which would run code. Raises ValueError naming the file."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # the kinds vary with what is damaged in the header
        raise ValueError(f"{path}: not readable as .npy ({error}); write it anew") from error


def check_image(image: Tensor, path: Path) -> None:
    """Raise ValueError for values that are not finite or not in 0 to 1."""
    if not torch.isfinite(image).all():
        raise ValueError(f"{path}: the image holds numbers that are not finite; write it anew")
    low, high = image.min(), image.max()
    if low < -BEYOND or high > 1 + BEYOND:
        raise ValueError(
            f"{path}: values from {low:g} to {high:g}; expected 0 to 1, or uint8 with 0 to 255; write it anew"
        )


def check_labels(labels: Tensor, classes: int, path: Path) -> None:
    """Raise ValueError for a label that is no class and not -1."""
    known = (labels == labels.round()) & (labels >= -1) & (labels < classes)  # False for NaN
    if not known.all():
        raise ValueError(
            f"{path}: a label of {labels[~known][0]:g}; expected whole numbers from -1 (ignored) to "
            f"{classes - 1}; write it anew"
        )


def file_names(folder: Path, layout: Layout) -> list[str]:
    """Names without ending, in numerical order; the same in every modality."""
    problems, found = [], {}
    for kind, name in layout.folders.items():
        place = folder / name
        if not place.is_dir():
            expected = ", ".join(layout.folders.values())
            problems.append(Problem(place, f"no such folder; expected {folder.name}/ to hold {expected}"))
            continue
        found[kind] = {path.stem for path in place.glob("*.npy")}
    if problems:
        raise InputError(problems)
    images = found[IMAGE]
    if not images:
        raise InputError([Problem(folder / layout.folders[IMAGE], "no .npy files; expected one per image")])
    for kind, names in found.items():
        if names != images:
            lacking, extra = sorted(images - names)[:3], sorted(names - images)[:3]
            message = f"{len(names)} files for {len(images)} images; missing {lacking}, without image {extra}"
            problems.append(Problem(folder / layout.folders[kind], message))
    if problems:
        raise InputError(problems)
    return sorted(images, key=lambda name: (int(name) if name.isdigit() else 0, name))


def check_sizes(folder: Path, layout: Layout, names: Sequence[str]) -> None:
    """All files have the first image's height and width, and the channels of their modality."""
    problems: list[Problem] = []
    size: tuple[int, ...] | None = None
    for name in names:
        for kind, place in layout.folders.items():
            path = folder / place / f"{name}.npy"
            try:
                shape = read_array(path).shape
            except ValueError as error:
                problems.append(Problem(path, str(error).removeprefix(f"{path}: ")))
                continue
            size = size or shape[:2]
            expected = (*size, CHANNELS[kind]) if CHANNELS[kind] else size
            if shape != expected and (shape, CHANNELS[kind]) != (size, 1):
                problems.append(Problem(path, f"shape {shape}; expected {expected}, as the first image has"))
    if problems:
        raise InputError(problems)


def resize(kind: str, array: Tensor, size: tuple[int, int]) -> Tensor:
    """Images bilinear, all else from the nearest pixel."""
    batch = array[None] if array.ndim == 3 else array[None, None]
    if kind == IMAGE:
        out = F.interpolate(batch, size, mode="bilinear", align_corners=False, antialias=True)
    else:
        out = F.interpolate(batch, size, mode="nearest")
    return out[0] if array.ndim == 3 else out[0, 0]


def split_validation(count: int, seed: int, share: float = 0.1) -> tuple[list[int], list[int]]:
    """Indices to train on, and a seeded share (at least one) to choose the best checkpoint on."""
    if count < 2:
        raise ValueError(f"{count} training images; at least 2 are needed to keep one for validation")
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    kept = max(1, round(share * count))
    return sorted(order[kept:]), sorted(order[:kept])
