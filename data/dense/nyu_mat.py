"""From the official `nyu_depth_v2_labeled.mat` to MTAN's layout.

    images (N, 3, W, H) uint8, depths (N, W, H) metres, labels (N, W, H) 0 = none, else a number of `names`
    normals (N, 3, W, H) unit vectors, 0 = none; not in the official file, taken where they were added

The file has 894 classes; `mapping` names the 13. Without `normals` they are estimated from depth, the cross
product of the differences between a pixel's neighbours in space, and left out (0) at jumps of depth.

Camera axes: x right, y down, z forward, in metres; normals face the camera. Legend: N images, H, W pixels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from data.dense.folder import IMAGE, NYU_CLASSES, resize
from model.owned_folders import left_folders, make_owned

log = logging.getLogger(__name__)

FOCAL, CENTRE, FULL_SIZE = (518.86, 519.47), (325.58, 253.74), (480, 640)  # of the Kinect's colour camera
JUMP = 0.05  # share of the depth between neighbours beyond which there is no surface between them
NEEDED = ("images", "depths", "labels")
OBJECTS, UNLABELLED = NYU_CLASSES.index("objects"), -1
UNFINISHED = ".unfinished_"  # what the name of a folder begins with until its parts are whole
# Words in the 894 names -> the 13 classes, for those who have no official table; the first that fits counts.
WORDS = {
    "bed": ("bed", "mattress", "pillow", "crib"),
    "books": ("book", "magazine"),
    "ceiling": ("ceiling",),
    "chair": ("chair", "stool", "bench"),
    "floor": ("floor", "rug", "carpet", "mat"),
    "sofa": ("sofa", "couch", "ottoman"),
    "table": ("table", "desk", "counter"),
    "tv": ("television", "tv", "monitor"),
    "window": ("window", "blind", "curtain"),
    "picture": ("picture", "poster", "painting", "whiteboard", "mirror"),
    "furniture": ("cabinet", "dresser", "shel", "drawer", "wardrobe", "stand", "bookcase", "furniture"),
    "wall": ("wall", "column", "door"),
}


@dataclass(frozen=True)
class Split:
    """Positions in the file, from 0."""

    train: Sequence[int]
    val: Sequence[int]


def convert(mat: Path, out: Path, split: Split, mapping: NDArray[Any] | None, size: tuple[int, int]) -> None:
    """Write `train/` and `val/` below `out`; they get their names when both are whole. A killed try leaves a
    folder `.unfinished_*` there, which the next one removes.

    mapping: class 0 to 12 or -1 for each number of a label, from 0; None: by the words in their names.

    Raises:
        ValueError: no such file, arrays missing in it, normals of another shape, a position outside it, a
            part without images, a mapping to other classes, an `out` that has one of the two already, or
            where no folder can be made and locked.
    """
    parts = {"train": split.train, "val": split.val}
    if taken := [part for part in parts if (out / part).exists()]:
        raise ValueError(
            f"{out} holds {' and '.join(taken)} already, whose images would mix with these; choose another "
            "folder, or delete what is there"
        )
    if not mat.is_file():
        raise ValueError(f"{mat}: no such file; expected the official nyu_depth_v2_labeled.mat")
    try:
        file = h5py.File(mat, "r")
    except OSError as error:
        raise ValueError(f"{mat}: not readable as a MATLAB 7.3 file ({error})") from error
    with file:
        missing = [name for name in NEEDED if name not in file]
        if missing:
            raise ValueError(f"{mat}: holds no {', '.join(missing)}; expected {', '.join(NEEDED)}")
        if "normals" in file and file["normals"].shape != file["images"].shape:
            raise ValueError(
                f"{mat}: normals of shape {file['normals'].shape}; expected {file['images'].shape}, as images"
            )
        log.info("normals are %s", "those of the file" if "normals" in file else "estimated from depth")
        count = len(file["images"])
        for part, places in parts.items():
            if not len(places):
                raise ValueError(f"{part}: none of the {count} images in {mat}; give a split with --splits")
            outside = [place for place in places if not 0 <= place < count]
            if outside:
                raise ValueError(f"{part}: image {outside[0]} of {count} in {mat}")
        table = map_names(read_names(file)) if mapping is None else check_mapping(mapping)
        with unfinished(out) as beside:
            for part, places in parts.items():
                for number, place in enumerate(places):
                    write_sample(file, place, table, beside / part, number, size)
                log.info("%s: %d images", part, len(places))
            for part in parts:
                (beside / part).rename(out / part)


@contextlib.contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A folder below `out` for this process, gone at the end; those of processes that were killed go first.

    Raises:
        ValueError: none can be made and locked.
    """
    for folder in left_folders(out, UNFINISHED):
        log.info("%s: removed, a conversion left it that was killed", folder)
        shutil.rmtree(folder, ignore_errors=True)
    try:
        folder, lock = make_owned(out, UNFINISHED)
    except OSError as error:
        raise ValueError(
            f"{out}: no folder can be made and locked there ({error}); choose another"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def check_mapping(mapping: NDArray[Any]) -> NDArray[np.int64]:
    """The mapping in whole numbers. Raises ValueError naming the first label number with no class of ours."""
    wrong = np.flatnonzero(~np.isin(mapping, range(UNLABELLED, len(NYU_CLASSES))))
    if len(wrong):
        raise ValueError(
            f"mapping: label number {wrong[0]} has class {mapping[wrong[0]]:g}; expected whole numbers, -1 "
            f"(none) or 0 ({NYU_CLASSES[0]}) to {len(NYU_CLASSES) - 1} ({NYU_CLASSES[-1]}). Of a table with "
            "0 for none and classes from 1 take 1 away"
        )
    return mapping.astype(np.int64)


def write_sample(
    file: h5py.File, place: int, table: NDArray[np.int64], out: Path, number: int, size: tuple[int, int]
) -> None:
    """One image and its targets, resized."""
    depth = np.asarray(file["depths"][place], np.float64).T  # (H, W)
    labels = np.asarray(file["labels"][place], np.int64).T
    if labels.max() >= len(table):
        raise ValueError(f"image {place}: label {labels.max()}, but the mapping has {len(table)} entries")
    if "normals" in file:
        normals = np.asarray(file["normals"][place], np.float32).transpose(0, 2, 1)  # (3, H, W)
    else:
        normals = np.moveaxis(normals_from_depth(depth), -1, 0).astype(np.float32)
    arrays = {
        IMAGE: np.asarray(file["images"][place], np.float32).transpose(0, 2, 1) / 255,
        "label": table[labels].astype(np.float32),
        "depth": depth[None].astype(np.float32),
        "normal": normals,
    }
    for kind, array in arrays.items():
        small = resize(kind, torch.from_numpy(np.ascontiguousarray(array)), size).numpy()
        folder = out / kind
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", small if small.ndim == 2 else np.moveaxis(small, 0, -1))


def normals_from_depth(depth: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit normals that face the camera, 0 where depth is missing or jumps, and at the border. (H, W, 3)"""
    height, width = depth.shape
    scale = width / FULL_SIZE[1]
    y, x = np.mgrid[:height, :width]
    rays = [(x - CENTRE[0] * scale) / (FOCAL[0] * scale), (y - CENTRE[1] * scale) / (FOCAL[1] * scale)]
    points = np.stack([rays[0] * depth, rays[1] * depth, depth], -1)
    across, down = np.zeros_like(points), np.zeros_like(points)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    normal = np.cross(down, across)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
    normal *= np.where((normal * points).sum(-1, keepdims=True) > 0, -1, 1)
    jump = np.maximum(np.abs(across[..., 2]), np.abs(down[..., 2])) > JUMP * depth
    inside = np.zeros(depth.shape, bool)
    inside[1:-1, 1:-1] = True
    near = [np.roll(depth, shift, axis) > 0 for axis in (0, 1) for shift in (-1, 1)]
    return np.where((inside & ~jump & (depth > 0) & np.all(near, axis=0))[..., None], normal, 0)


def map_names(names: Sequence[str]) -> NDArray[np.int64]:
    """Classes of the label numbers 0 (none), 1 .. by the words in their names; else `objects`."""
    log.warning("the 13 classes are guessed from names; results need the official table (--mapping)")
    table = [UNLABELLED]
    for name in names:
        found = [kind for kind, words in WORDS.items() if any(word in name.lower() for word in words)]
        table.append(NYU_CLASSES.index(found[0]) if found else OBJECTS)
    return np.array(table)


def read_names(file: h5py.File) -> list[str]:
    """Names of the classes. Raises ValueError where the file has none."""
    if "names" not in file:
        raise ValueError(f"{file.filename}: holds no names; give a table with --mapping")
    return ["".join(map(chr, np.asarray(file[reference]).ravel())) for reference in np.ravel(file["names"])]


def seeded_split(count: int, train: int, seed: int = 0) -> Split:
    """A split for those who have no official one."""
    order = np.random.default_rng(seed).permutation(count)
    return Split(sorted(order[:train].tolist()), sorted(order[train:].tolist()))
